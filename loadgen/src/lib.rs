//! A load generator for etcd-compatible servers.
