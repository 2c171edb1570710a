//! A future whose polls are counted: it is polled when it has been woken, and only then, so that each
//! poll is a piece of its work. Whoever has it may rest between two of them.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

/// Work that goes on piece by piece.
pub(super) struct Piecewise<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    call: Arc<Call>,
}

/// How the work is told that it may go on. Any thread may do so.
struct Call(Mutex<Called>);

#[derive(Default)]
struct Called {
    /// It may.
    made: bool,
    /// Whom else to tell.
    hears: Option<Waker>,
}

impl Call {
    fn lock(&self) -> MutexGuard<'_, Called> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let hears = {
            let mut called = self.lock();
            called.made = true;
            called.hears.take()
        };
        hears.into_iter().for_each(Waker::wake);
    }
}

impl<T> Piecewise<T> {
    /// Work that may begin.
    pub(super) fn new(future: impl Future<Output = T> + 'static) -> Self {
        let call = Call(Mutex::new(Called { made: true, hears: None }));
        Self { future: Box::pin(future), call: Arc::new(call) }
    }

    /// Whether it may go on. If not, whoever asks is woken when it may.
    pub(super) fn may_go_on(&self, cx: &Context<'_>) -> bool {
        let mut called = self.call.lock();
        if !called.made {
            called.hears = Some(cx.waker().clone());
        }
        called.made
    }

    /// Does one piece.
    pub(super) fn go_on(&mut self) -> Poll<T> {
        *self.call.lock() = Called::default();
        let waker = Waker::from(Arc::clone(&self.call));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::yield_now;
    use std::sync::mpsc;

    #[test]
    fn it_goes_on_when_it_was_woken_and_not_before() {
        let (called, calls) = mpsc::channel();
        let waiting = async move {
            yield_now().await;
            let mut first = true;
            std::future::poll_fn(|cx| {
                if std::mem::take(&mut first) {
                    called.send(cx.waker().clone()).unwrap();
                    return Poll::Pending;
                }
                Poll::Ready(7)
            })
            .await
        };
        let mut work = Piecewise::new(waiting);
        let cx = Context::from_waker(Waker::noop());
        assert!(work.may_go_on(&cx), "it may begin");
        assert!(work.go_on().is_pending());
        assert!(work.may_go_on(&cx), "it only let others run");
        assert!(work.go_on().is_pending());
        assert!(!work.may_go_on(&cx), "it waits");
        let waker = calls.recv().unwrap();
        std::thread::spawn(move || waker.wake()).join().unwrap();
        assert!(work.may_go_on(&cx));
        assert_eq!(work.go_on(), Poll::Ready(7));
    }
}
