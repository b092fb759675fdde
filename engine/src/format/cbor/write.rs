//! Writing: a thin layer over minicbor, whose integers and lengths are always in their shortest form.

use std::convert::Infallible;

use super::Extra;

/// Appends CBOR items to a buffer.
pub struct Encoder {
    out: minicbor::Encoder<Vec<u8>>,
}

fn sure(result: std::result::Result<&mut minicbor::Encoder<Vec<u8>>, Failed>) {
    result.expect("a Vec takes every byte");
}

type Failed = minicbor::encode::Error<Infallible>;

/// The bytes of one item.
pub fn encode(write: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut encoder = Encoder::new();
    write(&mut encoder);
    encoder.into_bytes()
}

/// The bytes of one map.
pub fn encode_map(write: impl FnOnce(&mut MapEncoder<'_>)) -> Vec<u8> {
    encode(|encoder| encoder.map(write))
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder::new()
    }
}

impl Encoder {
    pub fn new() -> Self {
        Encoder { out: minicbor::Encoder::new(Vec::new()) }
    }

    /// Writing up to `len` bytes moves nothing, so no copy of a secret stays behind.
    pub fn with_capacity(len: usize) -> Self {
        Encoder { out: minicbor::Encoder::new(Vec::with_capacity(len)) }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.out.into_writer()
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.out.writer().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn uint(&mut self, value: u64) {
        sure(self.out.u64(value));
    }

    pub fn int(&mut self, value: i64) {
        sure(self.out.i64(value));
    }

    pub fn bytes(&mut self, value: &[u8]) {
        sure(self.out.bytes(value));
    }

    pub fn text(&mut self, value: &str) {
        sure(self.out.str(value));
    }

    /// The head of an array; `len` items must follow.
    pub fn array(&mut self, len: usize) {
        sure(self.out.array(len as u64));
    }

    /// An array of what `write` writes for each item.
    pub fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
        mut write: impl FnMut(&mut Encoder, T),
    ) {
        let items = items.into_iter();
        self.array(items.len());
        items.for_each(|item| write(self, item));
    }

    /// An item that is encoded already.
    pub fn raw(&mut self, item: &[u8]) {
        self.out.writer_mut().extend_from_slice(item);
    }

    /// A map; `write` adds its keys in ascending order.
    pub fn map(&mut self, write: impl FnOnce(&mut MapEncoder<'_>)) {
        let head = self.len();
        self.raw(&[0xa0]);
        let mut map = MapEncoder { encoder: self, entries: 0, last: None };
        write(&mut map);
        let entries = map.entries;
        self.patch_map_head(head, entries);
    }

    /// A map from text to text, in the order that its encoding demands (shorter keys first).
    pub fn text_map<'t>(&mut self, entries: impl IntoIterator<Item = (&'t str, &'t str)>) {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(key, _)| (key.len(), *key));
        sure(self.out.map(entries.len() as u64));
        for (key, value) in entries {
            self.text(key);
            self.text(value);
        }
    }

    fn patch_map_head(&mut self, at: usize, entries: u64) {
        if entries < 24 {
            self.out.writer_mut()[at] |= entries as u8;
            return;
        }
        let mut head = minicbor::Encoder::new(Vec::new());
        sure(head.map(entries));
        self.out.writer_mut().splice(at..=at, head.into_writer());
    }
}

/// The inside of a map that is being written. Keys must ascend (asserted).
pub struct MapEncoder<'e> {
    encoder: &'e mut Encoder,
    entries: u64,
    last: Option<u64>,
}

impl MapEncoder<'_> {
    /// Writes a key; exactly one item must follow.
    pub fn key(&mut self, key: u64) -> &mut Encoder {
        assert!(self.last.is_none_or(|last| last < key), "map keys ascend");
        self.last = Some(key);
        self.entries += 1;
        self.encoder.uint(key);
        self.encoder
    }

    pub fn uint(&mut self, key: u64, value: impl Into<u64>) {
        self.key(key).uint(value.into());
    }

    pub fn int(&mut self, key: u64, value: i64) {
        self.key(key).int(value);
    }

    pub fn bytes(&mut self, key: u64, value: impl AsRef<[u8]>) {
        self.key(key).bytes(value.as_ref());
    }

    pub fn text(&mut self, key: u64, value: &str) {
        self.key(key).text(value);
    }

    pub fn opt_bytes(&mut self, key: u64, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.bytes(key, value);
        }
    }

    pub fn list<T>(
        &mut self,
        key: u64,
        items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
        write: impl FnMut(&mut Encoder, T),
    ) {
        self.key(key).list(items, write);
    }

    /// An array of byte strings.
    pub fn bytes_list(&mut self, key: u64, items: &[impl AsRef<[u8]>]) {
        self.list(key, items, |encoder, item| encoder.bytes(item.as_ref()));
    }

    /// What `Map::extra` kept.
    pub fn extra(&mut self, extra: &Extra) {
        for (key, value) in extra {
            self.key(*key).raw(value);
        }
    }
}
