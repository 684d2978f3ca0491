//! The content of uploads: cheap to make, different for every request, digested while it is sent.

use std::ops::Range;

use crate::schedule::Random;

/// Bytes of the random block that all uploads of a run share: 1 MiB.
const BLOCK_BYTES: usize = 1 << 20;
/// Pieces in which an upload goes out over its time.
pub const UPLOAD_PIECES: u64 = 16;
/// Most bytes handed to the connection at once: 64 KiB.
pub const MAX_PIECE_BYTES: u64 = 64 << 10;

/// Makes the contents of a run's uploads.
#[derive(Debug)]
pub struct UploadSource {
    block: Vec<u8>,
}

/// One upload's content: eight bytes that no other upload of the run begins with, then the block from a place
/// of its own on, as often as needed.
#[derive(Clone, Copy, Debug)]
pub struct UploadContent<'a> {
    block: &'a [u8],
    number: u64,
    bytes: u64,
}

impl UploadSource {
    /// A source whose contents follow from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let block = (0..BLOCK_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { block }
    }

    /// The content of the request with this number.
    pub fn content(&self, number: u64, bytes: u64) -> UploadContent<'_> {
        UploadContent { block: &self.block, number, bytes }
    }
}

impl<'a> UploadContent<'a> {
    /// The eight bytes at the front, fewer if the content is shorter.
    pub fn front(&self) -> Vec<u8> {
        let front = self.number.to_be_bytes();
        front[..front.len().min(self.bytes as usize)].to_vec()
    }

    /// The content between two places behind the front, in slices of at most [`MAX_PIECE_BYTES`].
    pub fn slices(self, range: Range<u64>) -> impl Iterator<Item = &'a [u8]> {
        let length = self.block.len() as u64;
        let start = Random::new(self.number).next() % length;
        let mut at = range.start;
        std::iter::from_fn(move || {
            let from = (start + at) % length;
            let size = (range.end.saturating_sub(at)).min(length - from).min(MAX_PIECE_BYTES);
            at += size;
            (size > 0).then(|| &self.block[from as usize..(from + size) as usize])
        })
    }

    /// The range of piece `index` of [`UPLOAD_PIECES`], counted behind the front.
    pub fn piece(&self, index: u64) -> Range<u64> {
        let length = self.bytes.saturating_sub(8);
        index * length / UPLOAD_PIECES..(index + 1) * length / UPLOAD_PIECES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(source: &UploadSource, number: u64, bytes: u64) -> Vec<u8> {
        let content = source.content(number, bytes);
        let mut all = content.front();
        for index in 0..UPLOAD_PIECES {
            content.slices(content.piece(index)).for_each(|slice| all.extend_from_slice(slice));
        }
        all
    }

    #[test]
    fn contents_have_their_length_and_differ() {
        let source = UploadSource::new(5);
        for bytes in [0, 1, 7, 8, 9, 17, 1_000_000, 3_000_001] {
            assert_eq!(whole(&source, 1, bytes).len() as u64, bytes);
        }
        assert_ne!(whole(&source, 1, 1000), whole(&source, 2, 1000));
        assert_ne!(whole(&source, 1, 1000)[8..], whole(&source, 2, 1000)[8..]);
        assert_eq!(whole(&source, 1, 1000), whole(&UploadSource::new(5), 1, 1000));
    }
}
