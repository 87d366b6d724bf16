//! The keys of rows: numbers, written so that rows lie in the order of their numbers. What is written one after the other
//! then lies together, and a commit touches few pages of the file, however many rows there are.

use crate::irc::facts::{OpId, Region};
use crate::irc::msg::RecordId;

/// What names a row.
pub(super) trait RowKey: Sized {
    /// Appends it.
    fn put(&self, row: &mut Vec<u8>);
    /// Takes it from the front.
    fn take(bytes: &mut &[u8]) -> Option<Self>;
}

/// How many bytes follow, and the number without leading zeros: the shorter one is the lower one.
impl RowKey for u64 {
    fn put(&self, row: &mut Vec<u8>) {
        let bytes = self.to_be_bytes();
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        row.push((bytes.len() - zeros) as u8);
        row.extend(&bytes[zeros..]);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (&len, rest) = bytes.split_first()?;
        let (number, rest) = rest.split_at_checked(len.into())?;
        let mut whole = [0; 8];
        let zeros = whole.len().checked_sub(number.len())?;
        whole[zeros..].copy_from_slice(number);
        *bytes = rest;
        // Each number has one key.
        number.first().is_none_or(|&first| first != 0).then(|| Self::from_be_bytes(whole))
    }
}

impl RowKey for Region {
    fn put(&self, row: &mut Vec<u8>) {
        u64::from(self.0).put(row);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        u64::take(bytes)?.try_into().ok().map(Self)
    }
}

impl RowKey for OpId {
    fn put(&self, row: &mut Vec<u8>) {
        self.requester.put(row);
        self.n.put(row);
        self.seq.put(row);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (requester, n) = (Region::take(bytes)?, u64::take(bytes)?);
        Some(Self { requester, n, seq: u64::take(bytes)? })
    }
}

impl RowKey for RecordId {
    fn put(&self, row: &mut Vec<u8>) {
        self.n.put(row);
        self.seq.put(row);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { n: u64::take(bytes)?, seq: u64::take(bytes)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(key: &impl RowKey) -> Vec<u8> {
        let mut row = Vec::new();
        key.put(&mut row);
        row
    }

    /// Numbers of every length.
    fn number() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0..64u32).prop_map(|(number, bits)| number >> bits)
    }

    fn id() -> impl Strategy<Value = OpId> {
        (any::<u16>(), number(), number()).prop_map(|(region, n, seq)| OpId {
            requester: Region(region),
            n,
            seq,
        })
    }

    proptest! {
        #[test]
        fn rows_lie_in_the_order_of_their_keys(one in id(), other in id()) {
            prop_assert_eq!(row(&one).cmp(&row(&other)), one.cmp(&other));
        }

        #[test]
        fn a_key_is_read_as_it_was_written(id in id()) {
            let record = RecordId { n: id.n, seq: id.seq };
            prop_assert_eq!(OpId::take(&mut row(&id).as_slice()), Some(id));
            prop_assert_eq!(RecordId::take(&mut row(&record).as_slice()), Some(record));
        }

        #[test]
        fn other_bytes_are_no_key_or_are_that_key(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut rest = bytes.as_slice();
            if let Some(number) = u64::take(&mut rest) {
                prop_assert_eq!(row(&number), &bytes[..bytes.len() - rest.len()]);
            }
        }
    }
}
