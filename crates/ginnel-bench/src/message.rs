//! What is sent: a payload that the sender writes and the receiver reads, every word of it, in every message.
//!
//! The kernel wants a System V message's type in front of its payload in one piece. It stands there from the start, so
//! that neither home pays for putting them together.

/// The sequence number of the message that ends a measurement.
pub(crate) const LAST: u64 = u64::MAX;

/// What a word differs by from the one before it.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A message of a fixed length: its type, then a payload in which every word follows from the first.
pub(crate) struct Message {
    words: Vec<u64>,
}

impl Message {
    /// A message of so many bytes, a multiple of 8, without the type.
    pub(crate) fn new(bytes: usize) -> Message {
        Message { words: vec![0; 1 + bytes / 8] }
    }

    /// Writes type and payload.
    #[inline]
    pub(crate) fn stamp(&mut self, kind: i64, sequence: u64) {
        self.words[0] = kind as u64;
        for (index, word) in self.words[1..].iter_mut().enumerate() {
            *word = sequence.wrapping_add(STEP.wrapping_mul(index as u64));
        }
    }

    /// Reads the payload: its sequence number, unless any word is not what the sender wrote.
    #[inline]
    pub(crate) fn check(&self) -> Option<u64> {
        let sequence = self.words[1];
        let mut differences = 0;
        for (index, word) in self.words[1..].iter().enumerate() {
            differences |= word ^ sequence.wrapping_add(STEP.wrapping_mul(index as u64));
        }
        (differences == 0).then_some(sequence)
    }

    /// Its type.
    #[inline]
    pub(crate) fn kind(&self) -> i64 {
        self.words[0] as i64
    }

    /// How many bytes the payload has.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        8 * (self.words.len() - 1)
    }

    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words[1..])
    }

    #[inline]
    pub(crate) fn payload_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.words[1..])
    }

    /// Type and payload in one piece, as `msgsnd(2)` takes them.
    #[inline]
    pub(crate) fn whole(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }

    #[inline]
    pub(crate) fn whole_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_checked() {
        let mut message = Message::new(64);
        message.stamp(5, 77);
        assert_eq!((message.check(), message.bytes()), (Some(77), 64));
        assert_eq!(message.whole()[..8], 5_i64.to_ne_bytes(), "the type stands in front");
        for byte in 0..64 {
            message.payload_mut()[byte] ^= 1;
            assert_eq!(message.check(), None, "byte {byte}");
            message.payload_mut()[byte] ^= 1;
        }
        message.stamp(5, LAST);
        assert_eq!(message.check(), Some(LAST));
    }
}
