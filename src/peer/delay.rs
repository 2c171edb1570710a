//! A long wire to another member, for tests (`--testing-peer-delay`).
//!
//! ```text
//!  flush ─▶ │ due │ due │ due │ ─▶ a second handle of the connection
//! ```
//!
//! What is flushed leaves in order, each piece once it is due, however many are on their way: the
//! wire is long, not narrow. When it is full nothing more is taken, and whoever sends waits. A socket
//! that is dropped ends behind what it sent, as late as that. In time are only the opening of a
//! connection, which is the machine's, and what a member asks before it runs.

use crate::io::Clock;
use futures_lite::{AsyncWrite, AsyncWriteExt as _};
use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// The near end of the wire.
pub struct DelayLine<C: Clock> {
    clock: C,
    delay: Duration,
    bytes_max: usize,
    wire: Rc<RefCell<Wire>>,
}

/// What both ends share.
#[derive(Default)]
struct Wire {
    /// Each with the time at which it is due.
    pieces: VecDeque<(Duration, Vec<u8>)>,
    /// Taken and not yet written.
    bytes: usize,
    /// When the connection ends, once nothing more will be taken.
    end: Option<Duration>,
    /// Nothing can be written any more.
    broken: Option<io::ErrorKind>,
    /// Of whoever waits for room, and of the far end.
    near: Option<Waker>,
    far: Option<Waker>,
}

impl<C: Clock> DelayLine<C> {
    /// A wire on which all is `delay` late and about `bytes_max` may be on their way.
    pub fn new(clock: C, delay: Duration, bytes_max: usize) -> Self {
        Self { clock, delay, bytes_max, wire: Rc::default() }
    }

    /// Takes all of `out`, which is empty when it is ready.
    pub fn poll_take(&self, out: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire.borrow_mut();
        if let Some(kind) = wire.broken {
            return Poll::Ready(Err(kind.into()));
        }
        if out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if wire.bytes >= self.bytes_max {
            wire.near = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.bytes += out.len();
        wire.pieces.push_back((self.clock.now() + self.delay, std::mem::take(out)));
        wake(&mut wire.far);
        Poll::Ready(Ok(()))
    }

    /// Writes what is due to `sink`, until the near end is gone and everything is written.
    pub fn deliver<S>(&self, mut sink: S) -> impl Future<Output = ()> + use<C, S>
    where
        S: AsyncWrite + Unpin,
    {
        let (clock, wire) = (self.clock.clone(), self.wire.clone());
        async move {
            loop {
                let (due, piece) = poll_fn(|cx| wire.borrow_mut().poll_next(cx)).await;
                if clock.now() < due {
                    clock.sleep_until(due).await;
                }
                let Some(piece) = piece else { return };
                let written = sink.write_all(&piece).await;
                let mut wire = wire.borrow_mut();
                wake(&mut wire.near);
                match written {
                    Ok(()) => wire.bytes -= piece.len(),
                    Err(error) => {
                        wire.broken = Some(error.kind());
                        return;
                    }
                }
            }
        }
    }
}

impl<C: Clock> Drop for DelayLine<C> {
    fn drop(&mut self) {
        let mut wire = self.wire.borrow_mut();
        wire.end = Some(self.clock.now() + self.delay);
        wake(&mut wire.far);
    }
}

impl Wire {
    /// The next piece and when it is due; none of them when only the end is left.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(Duration, Option<Vec<u8>>)> {
        let next = self.pieces.pop_front().map(|(due, piece)| (due, Some(piece)));
        match next.or(self.end.map(|due| (due, None))) {
            Some(next) => Poll::Ready(next),
            None => {
                self.far = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    waker.take().into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, pin::Pin};

    const DELAY: Duration = Duration::from_millis(50);

    /// Time that passes when the test says so.
    #[derive(Clone, Default)]
    struct Watch(Rc<Cell<Duration>>);

    impl Clock for Watch {
        fn now(&self) -> Duration {
            self.0.get()
        }
        fn wall_nanos(&self) -> u64 {
            0
        }
        fn sleep_until(&self, until: Duration) -> impl Future<Output = ()> + 'static {
            let own = self.clone();
            poll_fn(move |_| if own.now() >= until { Poll::Ready(()) } else { Poll::Pending })
        }
    }

    /// A far end that writes down each first byte and the millisecond at which it came; it refuses once
    /// it is told to.
    #[derive(Clone, Default)]
    struct Arrived {
        clock: Watch,
        seen: Rc<RefCell<Vec<(u128, u8)>>>,
        refuses: Rc<Cell<bool>>,
    }

    impl AsyncWrite for Arrived {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.refuses.get() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.seen.borrow_mut().push((self.clock.now().as_millis(), bytes[0]));
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    struct Bench {
        arrived: Arrived,
        line: Option<DelayLine<Watch>>,
        far: Pin<Box<dyn Future<Output = ()>>>,
    }

    impl Bench {
        fn new(bytes_max: usize) -> Self {
            let arrived = Arrived::default();
            let line = DelayLine::new(arrived.clock.clone(), DELAY, bytes_max);
            let far = Box::pin(line.deliver(arrived.clone()));
            Self { arrived, line: Some(line), far }
        }

        fn take(&self, out: &mut Vec<u8>) -> Poll<Result<(), io::ErrorKind>> {
            let line = self.line.as_ref().expect("it is not dropped yet");
            let taken = line.poll_take(out, &mut Context::from_waker(Waker::noop()));
            taken.map_err(|error| error.kind())
        }

        /// Sends a byte that must be taken.
        fn send(&self, byte: u8) {
            assert_eq!(self.take(&mut vec![byte]), Poll::Ready(Ok(())));
        }

        /// Lets so much time pass, a millisecond at a time; whether the connection has ended.
        fn pass(&mut self, millis: u64) -> bool {
            let mut ended = false;
            for _ in 0..millis {
                let clock = &self.arrived.clock.0;
                clock.set(clock.get() + Duration::from_millis(1));
                ended |= self.far.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            }
            ended
        }

        fn seen(&self) -> Vec<(u128, u8)> {
            self.arrived.seen.borrow().clone()
        }
    }

    #[test]
    fn everything_is_as_late_as_the_first_and_in_order() {
        let mut bench = Bench::new(usize::MAX);
        for byte in 0..100 {
            bench.send(byte);
            bench.pass(1);
        }
        bench.pass(60);
        let expected: Vec<_> = (0..100).map(|byte| (50 + u128::from(byte), byte)).collect();
        assert_eq!(bench.seen(), expected, "a hundred on their way are no later than one");
    }

    #[test]
    fn a_full_line_takes_nothing_and_loses_nothing() {
        let mut bench = Bench::new(2);
        bench.send(0);
        bench.pass(10);
        bench.send(1);
        let mut held = vec![2];
        assert_eq!(bench.take(&mut held), Poll::Pending);
        assert_eq!(held, [2], "it stays where it is");
        bench.pass(40);
        assert_eq!(bench.take(&mut held), Poll::Ready(Ok(())));
        assert!(held.is_empty());
        bench.pass(60);
        assert_eq!(bench.seen(), [(50, 0), (60, 1), (100, 2)]);
    }

    #[test]
    fn the_end_comes_behind_what_was_sent_and_as_late() {
        let mut bench = Bench::new(usize::MAX);
        bench.send(0);
        bench.pass(10);
        bench.line = None;
        assert!(!bench.pass(49));
        assert_eq!(bench.seen(), [(50, 0)]);
        assert!(bench.pass(1));
    }

    #[test]
    fn whoever_sends_hears_that_nothing_can_be_written() {
        let mut bench = Bench::new(usize::MAX);
        bench.send(0);
        bench.arrived.refuses.set(true);
        assert!(bench.pass(50));
        for mut out in [vec![], vec![1]] {
            assert_eq!(bench.take(&mut out), Poll::Ready(Err(io::ErrorKind::TimedOut)));
        }
    }
}
