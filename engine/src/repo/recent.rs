//! Bytes that were decoded lately, up to a limit: the oldest go first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex};

pub type Plain = Arc<Vec<u8>>;

pub struct Recent<K> {
    max_bytes: usize,
    held: Mutex<Held<K>>,
}

struct Held<K> {
    plain: HashMap<K, Plain>,
    order: VecDeque<K>,
    bytes: usize,
}

impl<K: Copy + Eq + Hash> Recent<K> {
    pub fn new(max_bytes: usize) -> Self {
        let held = Held { plain: HashMap::new(), order: VecDeque::new(), bytes: 0 };
        Self { max_bytes, held: Mutex::new(held) }
    }

    pub fn get(&self, key: &K) -> Option<Plain> {
        self.held.lock().expect("no panic holds this lock").plain.get(key).cloned()
    }

    /// Two threads may have decoded it at once: it counts once. The newest stays, however large.
    pub fn put(&self, key: K, plain: Plain) {
        let mut held = self.held.lock().expect("no panic holds this lock");
        let len = plain.len();
        if held.plain.insert(key, plain).is_none() {
            held.bytes += len;
            held.order.push_back(key);
        }
        while held.bytes > self.max_bytes && held.order.len() > 1 {
            let oldest = held.order.pop_front().expect("more than one");
            if let Some(gone) = held.plain.remove(&oldest) {
                held.bytes -= gone.len();
            }
        }
    }
}
