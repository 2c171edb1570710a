//! Whatever is typed, nothing panics.

use super::*;
use proptest::prelude::*;

/// Arguments that are likely to mean something.
fn argument() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = table::flags().map(|flag| flag.name).collect();
    let value = prop_oneof![
        "\\PC{0,12}",
        "[-+0-9a-z_.]{0,20}",
        "(http|unix)://[0-9a-f.:\\[\\]]{0,12}(,http://0.0.0.0:1)?",
        "[A-Z][A-Za-z]{0,8}=(true|false|x)",
        Just("0.0.0.0".into()),
    ];
    (proptest::sample::select(names), "-{0,3}", "=?", value.clone())
        .prop_map(|(name, dashes, equals, value)| format!("{dashes}{name}{equals}{value}"))
        .boxed()
        .prop_union(value.boxed())
}

proptest! {
    #[test]
    fn no_start_line_panics(line in proptest::collection::vec(argument(), 0..6), env in proptest::collection::vec(argument(), 0..4)) {
        let env = env.iter().map(|text| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (format!("ETCD_{}", key.trim_start_matches('-').to_uppercase().replace('-', "_")).into(), value.into())
        });
        let read = |_: &Path| Ok(String::new());
        load(line.iter().map(OsString::from), env, &read, &|| Some(HOST));
    }

    #[test]
    fn no_file_panics(text in "(\\PC|[-:,\\[\\]{}&*!'\"\n\t ]){0,80}") {
        start(&["--config-file=conf.yaml"], &[], &text);
    }

    #[test]
    fn no_value_of_a_key_panics(line in 0..200usize, value in "\\PC{0,30}") {
        let key = table::flags().nth(line % table::flags().count()).expect("it is below the count").name;
        start(&["--config-file=conf.yaml"], &[], &format!("{key}: {value}\n"));
    }

    #[test]
    fn a_number_is_read_back(number: u64, signed: i64) {
        prop_assert_eq!(Kind::Uint(u64::MAX).parse(&format!("{number:#x}")), Ok(value::Value::Uint(number)));
        prop_assert_eq!(Kind::Int.parse(&signed.to_string()), Ok(value::Value::Int(signed)));
    }
}
