//! Every script in `scripts/` says of our server what it says of etcd. `UPDATE=1` rewrites them
//! from a real etcd's answers; nothing else ever does. `SCRIPT=lock` runs those with such a name.

use std::{fs, path::Path};

use e2e::{
    binary, script,
    server::{Folder, Setup},
};

#[test]
fn etcdctl_sees_no_difference() {
    let test = "etcdctl_sees_no_difference";
    let Some(etcdctl) = binary::etcd("etcdctl", test) else { return };
    let update = std::env::var_os("UPDATE").is_some();
    let server = if update { binary::etcd("etcd", test) } else { Some(binary::ringleader()) };
    let Some(server) = server else { return };
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut paths: Vec<_> = fs::read_dir(scripts)
        .expect("the scripts are there")
        .map(|entry| entry.expect("the folder is readable").path())
        .collect();
    let only = std::env::var("SCRIPT").unwrap_or_default();
    paths.retain(|path| path.to_string_lossy().contains(&only));
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let folder = Folder::new("script");
        let before = fs::read_to_string(&path).expect("the script is readable");
        let setup = Setup::new(&server, folder.path()).flags(script::flags(&before));
        let server = setup.start().expect("the server starts");
        let now = script::replay(&before, &etcdctl, &server.endpoint());
        match update {
            true => fs::write(&path, now).expect("the script is ours to write"),
            false => script::check(&path, &now),
        }
    }
}
