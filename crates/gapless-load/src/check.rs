//! Judges the content of a body while it arrives.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::digest::{HEX_LENGTH, finish_hex};
use crate::plan::{Check, ClassPlan};

/// Most bytes kept of a body that has to be one digest: the digest and white space around it.
const MAX_ECHO_BYTES: usize = 2 * HEX_LENGTH;

/// The body of the longest [`Check::Sequence`] of a plan, made once.
#[derive(Clone, Debug)]
pub struct SequenceBody(Arc<Vec<u8>>);

impl SequenceBody {
    /// The sequence that serves all of `classes`.
    pub fn for_classes(classes: &[ClassPlan]) -> Self {
        let lengths = classes.iter().map(|class| match class.check {
            Check::Sequence { bytes } => bytes,
            _ => 0,
        });
        Self::new(lengths.max().unwrap_or(0))
    }

    /// The first `bytes` bytes of `1\n2\n3\n…`.
    pub fn new(bytes: u64) -> Self {
        use std::io::Write;
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut content = Vec::new();
        let mut number = 1_u64;
        while content.len() < length {
            // Writing into a Vec cannot fail.
            let _ = writeln!(content, "{number}");
            number += 1;
        }
        content.truncate(length);
        Self(Arc::new(content))
    }
}

/// One response's check, fed with the content as it comes.
#[derive(Debug)]
pub enum Checker {
    /// The framing says it all.
    Whole,
    /// First the line with the digest, then what it is the digest of.
    SelfDigest {
        /// The first line, without its end.
        line: Vec<u8>,
        /// Whether the line's end was seen.
        line_ended: bool,
        /// What followed the line.
        rest: Sha256,
    },
    /// The body has to be this digest.
    EchoDigest {
        /// The digest of what was uploaded.
        expected: String,
        /// What came.
        body: Vec<u8>,
    },
    /// The body has to be the first bytes of the sequence.
    Sequence {
        /// The sequence, at least `length` bytes of it.
        expected: SequenceBody,
        /// Bytes the body has to have.
        length: usize,
        /// Bytes that came and were right; none once one was wrong.
        right: Option<usize>,
    },
}

impl Checker {
    /// The checker for `check`; `uploaded` is the digest of the request's body.
    pub fn new(check: Check, uploaded: Option<String>, sequence: &SequenceBody) -> Self {
        match check {
            Check::Answered | Check::Complete => Self::Whole,
            Check::SelfDigest => Self::SelfDigest { line: Vec::new(), line_ended: false, rest: Sha256::new() },
            Check::EchoDigest => Self::EchoDigest { expected: uploaded.unwrap_or_default(), body: Vec::new() },
            Check::Sequence { bytes } => {
                let length = usize::try_from(bytes).unwrap_or(usize::MAX);
                Self::Sequence { expected: sequence.clone(), length, right: Some(0) }
            }
        }
    }

    /// Takes the next piece of content.
    pub fn update(&mut self, content: &[u8]) {
        match self {
            Self::Whole => {}
            Self::SelfDigest { line, line_ended, rest } => {
                rest.update(take_first_line(line, line_ended, content));
            }
            Self::EchoDigest { body, .. } => keep_up_to(body, content, MAX_ECHO_BYTES),
            Self::Sequence { expected, length, right } => {
                *right = right.and_then(|from| {
                    let until = from.checked_add(content.len()).filter(|until| until <= length)?;
                    (expected.0.get(from..until)? == content).then_some(until)
                });
            }
        }
    }

    /// Ends the body: what is wrong with it, if anything is.
    pub fn finish(self) -> Result<(), String> {
        match self {
            Self::Whole => Ok(()),
            Self::SelfDigest { line, line_ended, rest } => match line_ended && line == finish_hex(rest).as_bytes() {
                true => Ok(()),
                false => Err("the first line is not the digest of what follows it".to_owned()),
            },
            Self::EchoDigest { expected, body } if body.trim_ascii() == expected.as_bytes() => Ok(()),
            Self::EchoDigest { expected, body } => {
                Err(format!("uploaded {expected}, the answer was {:?}", String::from_utf8_lossy(body.trim_ascii())))
            }
            Self::Sequence { length, right: Some(right), .. } if right == length => Ok(()),
            Self::Sequence { length, right: Some(right), .. } => Err(format!("the sequence ended after {right} of {length} bytes")),
            Self::Sequence { length, .. } => Err(format!("not the expected sequence of {length} bytes")),
        }
    }
}

/// Moves bytes up to the first line's end into `line`; what is left of `content` after it.
fn take_first_line<'a>(line: &mut Vec<u8>, ended: &mut bool, content: &'a [u8]) -> &'a [u8] {
    if *ended {
        return content;
    }
    let end = content.iter().position(|byte| *byte == b'\n');
    *ended = end.is_some();
    let cut = end.unwrap_or(content.len());
    keep_up_to(line, &content[..cut], HEX_LENGTH + 1);
    &content[end.map_or(cut, |end| end + 1)..]
}

fn keep_up_to(kept: &mut Vec<u8>, content: &[u8], limit: usize) {
    let room = limit.saturating_sub(kept.len()).min(content.len());
    kept.extend_from_slice(&content[..room]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(check: Check, uploaded: Option<&str>, body: &[u8], step: usize) -> Result<(), String> {
        let sequence = SequenceBody::new(100);
        let mut checker = Checker::new(check, uploaded.map(str::to_owned), &sequence);
        body.chunks(step).for_each(|piece| checker.update(piece));
        checker.finish()
    }

    #[test]
    fn the_sequence_is_what_seq_and_head_print() {
        assert_eq!(SequenceBody::new(21).0.as_slice(), b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
        assert_eq!(SequenceBody::new(20).0.as_slice(), b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10");
    }

    #[test]
    fn a_sequence_has_its_bytes_and_no_others() {
        let check = Check::Sequence { bytes: 20 };
        let right = b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10";
        for step in 1..21 {
            assert!(judge(check, None, right, step).is_ok());
            assert!(judge(check, None, &right[..19], step).is_err());
            assert!(judge(check, None, b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", step).is_err());
            assert!(judge(check, None, b"1\n2\n3\n4\n5\n6\n8\n8\n9\n10", step).is_err());
        }
    }

    #[test]
    fn a_self_digest_covers_all_after_the_first_line() {
        let digest = finish_hex(Sha256::new_with_prefix(b"some\ncontent\n"));
        let body = format!("{digest}\nsome\ncontent\n").into_bytes();
        for step in [1, 2, 63, 64, 65, 66, 200] {
            assert!(judge(Check::SelfDigest, None, &body, step).is_ok(), "step {step}");
            for wrong in [0, 64, 66, body.len() - 1] {
                let mut changed = body.clone();
                changed[wrong] ^= 1;
                assert!(judge(Check::SelfDigest, None, &changed, step).is_err(), "byte {wrong}");
            }
            assert!(judge(Check::SelfDigest, None, &body[..body.len() - 1], step).is_err());
        }
        assert!(judge(Check::SelfDigest, None, b"", 1).is_err());
        let upper = format!("{}\nsome\ncontent\n", digest.to_uppercase());
        assert!(judge(Check::SelfDigest, None, upper.as_bytes(), 9).is_err());
        let empty = finish_hex(Sha256::new());
        assert!(judge(Check::SelfDigest, None, empty.as_bytes(), 9).is_err());
        assert!(judge(Check::SelfDigest, None, format!("{empty}\n").as_bytes(), 9).is_ok());
    }

    #[test]
    fn an_echo_is_the_uploads_digest_and_white_space() {
        let digest = "ab".repeat(32);
        let judge = |body: String| judge(Check::EchoDigest, Some(&digest), body.as_bytes(), 10);
        assert!(judge(format!(" {digest}\r\n")).is_ok());
        assert!(judge(format!("{digest} -")).is_err());
        assert!(judge(digest.to_uppercase()).is_err());
        assert!(judge(String::new()).is_err());
    }
}
