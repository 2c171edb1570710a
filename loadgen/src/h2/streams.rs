//! The streams of a connection that are open, by number.

use std::collections::VecDeque;

use super::Stream;

/// Streams in the order in which they were opened. Answers come in nearly the same, so the one that
/// ends is near the front, where it costs little to take it out.
#[derive(Debug, Default)]
pub(super) struct Streams(VecDeque<(u32, Stream)>);

impl Streams {
    /// Adds one, whose number is larger than any before.
    pub(super) fn open(&mut self, number: u32, stream: Stream) {
        debug_assert!(self.0.back().is_none_or(|(last, _)| *last < number), "numbers grow");
        self.0.push_back((number, stream));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn at(&self, number: u32) -> Option<usize> {
        match self.0.front() {
            Some((first, _)) if *first == number => Some(0),
            _ => self.0.binary_search_by_key(&number, |(number, _)| *number).ok(),
        }
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Stream> {
        let at = self.at(number)?;
        self.0.get_mut(at).map(|(_, stream)| stream)
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Stream> {
        let at = self.at(number)?;
        self.0.remove(at).map(|(_, stream)| stream)
    }

    /// Takes out those with larger numbers.
    pub(super) fn split_off_after(&mut self, number: u32) -> impl Iterator<Item = Stream> + use<> {
        let at = self.0.partition_point(|(of, _)| *of <= number);
        self.0.split_off(at).into_iter().map(|(_, stream)| stream)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        self.0.iter_mut().map(|(number, stream)| (*number, stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(tag: usize) -> Stream {
        Stream { tag, send_window: 0, unsent: Vec::new(), whole: true, owed: 0 }
    }

    #[test]
    fn streams_end_in_any_order_and_the_others_are_found() {
        let mut streams = Streams::default();
        (0..10).for_each(|tag| streams.open(2 * tag as u32 + 1, stream(tag)));
        for ended in [7, 1, 19, 3] {
            assert_eq!(streams.remove(ended).map(|stream| stream.tag as u32 * 2 + 1), Some(ended));
            assert!(streams.remove(ended).is_none() && streams.get_mut(ended).is_none());
        }
        assert_eq!(streams.get_mut(5).map(|stream| stream.tag), Some(2));
        let after: Vec<_> = streams.split_off_after(9).map(|stream| stream.tag).collect();
        let left: Vec<_> = streams.iter_mut().map(|(number, _)| number).collect();
        assert_eq!((after, left, streams.len()), (vec![5, 6, 7, 8], vec![5, 9], 2));
    }
}
