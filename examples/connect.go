// Package examples holds what all examples begin with.
package examples

import (
	"log"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Connect reaches the server that $ENDPOINT names, else the one on this machine.
func Connect() *clientv3.Client {
	endpoint := os.Getenv("ENDPOINT")
	if endpoint == "" {
		endpoint = "http://127.0.0.1:2379"
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
	Check(err)
	return client
}

// Check ends the program where something failed. What is more than an example asks which error it is.
func Check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
