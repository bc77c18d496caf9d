//! Bytes as they arrived, taken out in other lengths: without a copy where one piece has them all.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// A queue of bytes.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// None is empty.
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl Pieces {
    /// Adds bytes at the end.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// Takes the first `count` bytes; `None` when there are fewer.
    pub(crate) fn take(&mut self, count: usize) -> Option<Bytes> {
        if count > self.length {
            return None;
        }
        self.length -= count;
        match self.pieces.front_mut() {
            Some(front) if front.len() > count => Some(front.split_to(count)),
            Some(front) if front.len() == count => self.pieces.pop_front(),
            _ => Some(self.gather(count)),
        }
    }

    /// Copies bytes that lie in several pieces.
    fn gather(&mut self, count: usize) -> Bytes {
        let mut gathered = BytesMut::with_capacity(count);
        while gathered.len() < count {
            let Some(front) = self.pieces.front_mut() else {
                break;
            };
            let part = front.len().min(count - gathered.len());
            gathered.extend_from_slice(&front[..part]);
            front.advance(part);
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
        gathered.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_within_one_piece_are_not_copied() {
        let piece = Bytes::from(vec![7; 100]);
        let (first, rest) = (piece.as_ptr(), piece[60..].as_ptr());
        let mut pieces = Pieces::default();
        pieces.push(piece);
        assert_eq!(pieces.take(60).unwrap().as_ptr(), first);
        assert_eq!(pieces.take(40).unwrap().as_ptr(), rest);
        assert_eq!(pieces.take(1), None);
    }

    proptest! {
        #[test]
        fn any_cuts_give_the_bytes_in_order(
            pushed in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            taken in proptest::collection::vec(0usize..60, 0..40),
        ) {
            let mut pieces = Pieces::default();
            for piece in &pushed {
                pieces.push(Bytes::from(piece.clone()));
            }
            let all = pushed.concat();
            let mut at = 0;
            for count in taken {
                match pieces.take(count) {
                    Some(bytes) => {
                        prop_assert_eq!(&bytes[..], &all[at..at + count]);
                        at += count;
                    }
                    None => prop_assert!(count > all.len() - at),
                }
                prop_assert_eq!(pieces.length, all.len() - at);
            }
        }
    }
}
