//! What an entry will look at when it is applied, asked for while it is on its way to the log: where memory is
//! short the writer would wait for one page of the index after the other (decision 0015).

use super::{
    Store,
    command::{self, Body, DeleteRange, Op, Put, Range, Txn},
    is_memory_short,
    range::interval,
};
use crate::{limits::KEYS_LOOKED_FOR_MAX, tree::Reader};
use bytes::Bytes;

impl Store {
    /// Asks for what applying this entry's data will read, and waits for nothing. What cannot be read is
    /// applying's concern.
    pub fn foresee(&self, data: &Bytes) {
        if !is_memory_short() {
            return;
        }
        let reader = self.tree.reader();
        for command in command::commands(data.clone()).map_while(Result::ok) {
            match &command.body {
                Body::Put(put) => foresee_put(reader, put),
                Body::DeleteRange(delete) => foresee_delete(reader, delete),
                Body::Txn(txn) => foresee_txn(reader, txn),
                _ => {}
            }
        }
    }
}

fn foresee_put(reader: Reader<'_>, put: &Put) {
    let values = put.prev || put.ignore_value || put.ignore_lease;
    foresee(reader, &put.key, &[], values);
}

fn foresee_delete(reader: Reader<'_>, delete: &DeleteRange) {
    foresee(reader, &delete.key, &delete.end, delete.prev);
}

fn foresee_txn(reader: Reader<'_>, txn: &Txn) {
    txn.compares.iter().for_each(|compare| foresee(reader, &compare.key, &compare.end, false));
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Put(put) => foresee_put(reader, put),
            Op::DeleteRange(delete) => foresee_delete(reader, delete),
            Op::Range(Range { key, end, .. }) => foresee(reader, key, end, true),
            Op::Txn(txn) => foresee_txn(reader, txn),
            Op::Nothing => {}
        }
    }
}

fn foresee(reader: Reader<'_>, key: &[u8], end: &[u8], values: bool) {
    // Whether it is there does not matter: it has been asked for.
    let _there = match end.is_empty() {
        true => reader.is_key_at_hand(key, values),
        false => reader.is_at_hand(&interval(key, end), KEYS_LOOKED_FOR_MAX as usize, values),
    };
}
