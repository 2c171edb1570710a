//! The committed code is what the `.proto` files say. `UPDATE=1 cargo test -p proto` rewrites it.
//!
//! Generating here instead of in a build script keeps the compiler of `.proto` files out of the
//! build of the product, and the generated code where it can be read.

use std::{fmt::Write as _, fs, path::Path};

use prost_build::{Config, Module, Service, ServiceGenerator};

/// What a client may call, and what members say. Each imports what it needs.
const ROOTS: [&str; 7] = [
    "raft.proto",
    "raft_internal.proto",
    "rpc.proto",
    "lease.proto",
    "lock.proto",
    "election.proto",
    "health.proto",
];

/// A package, and the file its code is kept in.
const PACKAGES: [(&str, &str); 9] = [
    ("authpb", "authpb.rs"),
    ("etcdserverpb", "etcdserverpb.rs"),
    ("grpc.health.v1", "health.rs"),
    ("leasepb", "leasepb.rs"),
    ("membershippb", "membershippb.rs"),
    ("mvccpb", "mvccpb.rs"),
    ("raftpb", "raftpb.rs"),
    ("v3electionpb", "v3electionpb.rs"),
    ("v3lockpb", "v3lockpb.rs"),
];

/// For each service a module with the paths of its methods, as they stand in `:path`.
struct Paths;

impl ServiceGenerator for Paths {
    fn generate(&mut self, service: Service, code: &mut String) {
        let full = format!("{}.{}", service.package, service.proto_name);
        let module = service.proto_name.to_lowercase();
        writeln!(code, "/// Paths of the methods of `{full}`.\npub mod {module} {{").unwrap();
        for method in &service.methods {
            let (name, path) = (method.name.to_uppercase(), &method.proto_name);
            writeln!(code, "    pub const {name}: &str = \"/{full}/{path}\";").unwrap();
        }
        writeln!(code, "}}").unwrap();
    }
}

fn generate() -> Vec<(&'static str, String)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("etcd");
    let mut files = protox::compile(ROOTS, [here]).expect("the .proto files are sound");
    // Left as it is, `peerURLs` would become `peer_ur_ls` in Rust. The wire carries no names.
    for message in files.file.iter_mut().flat_map(|file| &mut file.message_type) {
        for field in &mut message.field {
            field.name = field.name.as_ref().map(|name| name.replace("URLs", "Urls"));
        }
    }
    let requests = files
        .file
        .into_iter()
        .map(|file| (Module::from_protobuf_package_name(file.package()), file))
        .collect();
    let mut config = Config::new();
    config.bytes(["."]).service_generator(Box::new(Paths));
    let mut code = config.generate(requests).expect("prost can say every message");
    PACKAGES
        .map(|(package, file)| {
            let body = code.remove(&Module::from_protobuf_package_name(package));
            (file, body.unwrap_or_else(|| panic!("no code for {package}")))
        })
        .into_iter()
        .collect()
}

#[test]
fn the_committed_code_is_what_the_proto_files_say() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, body) in generate() {
        let path = src.join(file);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &body).expect("src can be written");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == body, "{file} is stale: run UPDATE=1 cargo test -p proto");
    }
}
