//! Every rule of an index run, checked once when it arrives; afterwards look-ups need no care.

use crate::error::FormatError;
use crate::format::id::ChunkId;
use crate::format::index::{NO_TABLE, PackRow, RUN, Run, RunFrame};
use crate::format::layout::{check, check_zero, limit, u32_at};
use crate::format::pack::{
    CHUNK_LEN_MAX, FRAME_PLAIN_MAX, HEADER_LEN, PACK_LEN_MAX, PackClass, TAG_LEN, check_bases,
};

impl Run<'_> {
    pub fn validate(&self) -> Result<(), FormatError> {
        self.check_packs()?;
        self.check_frames()?;
        self.check_fanout()?;
        self.check_chunks()
    }

    fn check_packs(&self) -> Result<(), FormatError> {
        for row in self.packs {
            PackClass::read(RUN, row[56])?;
            check_zero(RUN, &row[57..])?;
        }
        limit(RUN, self.packs().all(|pack| pack.len <= PACK_LEN_MAX), "length of a pack")
    }

    fn check_frames(&self) -> Result<(), FormatError> {
        for row in self.frames {
            check_zero(RUN, &row[45..])?;
            let frame = RunFrame::read(row);
            let pack = self.pack(frame.pack);
            check_frame(&frame, pack)?;
            let context = (frame.context as usize) < self.contexts.len();
            check(RUN, context, "a frame has no such context")?;
            check(RUN, self.table(&frame).is_some(), "a frame has no such table")?;
            let Some(bases) = self.bases(&frame) else {
                return check(RUN, false, "a frame has no such bases");
            };
            check_bases(RUN, frame.codec, bases)?;
        }
        Ok(())
    }

    fn check_fanout(&self) -> Result<(), FormatError> {
        let what = "its fanout does not count its ids";
        let shift = 32 - self.fanout_bits;
        let mut at = 0;
        for (bucket, bound) in self.fanout.iter().enumerate() {
            let below = |id: &[u8; 32]| u64::from(super::u32_be(id)) >> shift < bucket as u64;
            let bound = u32_at(bound, 0) as usize;
            check(RUN, at <= bound && bound <= self.ids.len(), what)?;
            check(RUN, self.ids[at..bound].iter().all(below), what)?;
            check(RUN, self.ids.get(bound).is_none_or(|id| !below(id)), what)?;
            at = bound;
        }
        check(RUN, at == self.ids.len(), what)
    }

    fn check_chunks(&self) -> Result<(), FormatError> {
        // Chunks of each frame that this run names: single frames have one.
        let mut seen = vec![false; self.frames.len()];
        let mut last: Option<(&[u8; 32], u32)> = None;
        for (id, locator) in self.ids.iter().zip(self.locators) {
            let [index, offset, len] = [0, 4, 8].map(|at| u32_at(locator, at));
            check(RUN, last.is_none_or(|last| last <= (id, index)), "its ids are not in order")?;
            check(RUN, self.shard.holds(&ChunkId(*id)), "an id belongs to another shard")?;
            last = Some((id, index));
            let Some(frame) = self.frame(index) else {
                return check(RUN, false, "a chunk has no such frame");
            };
            check(RUN, len > 0, "a chunk is empty")?;
            limit(RUN, len <= CHUNK_LEN_MAX, "length of a chunk")?;
            let end = u64::from(offset) + u64::from(len);
            check(RUN, end <= frame.plain.into(), "a chunk reaches beyond its frame")?;
            if frame.table == NO_TABLE {
                let whole = offset == 0 && len == frame.plain && !seen[index as usize];
                check(RUN, whole, "a frame without a table holds more than one chunk")?;
            }
            seen[index as usize] = true;
        }
        check(RUN, seen.iter().all(|&seen| seen), "a frame has no chunk here")
    }
}

fn check_frame(frame: &RunFrame, pack: Option<PackRow>) -> Result<(), FormatError> {
    let Some(pack) = pack else { return check(RUN, false, "a frame has no such pack") };
    let end = frame.offset.checked_add(frame.stored.into());
    let inside = frame.offset >= HEADER_LEN as u64 && end.is_some_and(|end| end <= pack.len);
    check(RUN, inside, "a frame is not inside its pack")?;
    check(RUN, frame.stored >= TAG_LEN, "a frame is shorter than its tag")?;
    check(RUN, frame.plain > 0, "a frame is empty")?;
    limit(RUN, frame.plain <= FRAME_PLAIN_MAX, "plain length of a frame")
}
