//! A pack's header, trailer and directory: what parses is written back byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::format::pack::{Directory, PackHeader, Trailer};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = PackHeader::from_bytes(bytes) {
        assert_eq!(header.to_bytes(), bytes[..header.to_bytes().len()]);
    }
    if let Ok(trailer) = Trailer::from_bytes(bytes, 1 << 20) {
        assert_eq!(trailer.to_bytes(), *bytes);
    }
    if let Ok(directory) = Directory::from_bytes(bytes) {
        assert_eq!(directory.to_bytes(), bytes);
        let chunks: usize = directory.frames_with_tables().map(|(_, chunks, _)| chunks.len()).sum();
        assert_eq!(chunks, directory.chunks.len());
        for context in &directory.contexts {
            directory.seal_of(context);
        }
    }
});
