//! A place where one task waits for what another brings.

use futures_lite::future;
use std::{
    cell::RefCell,
    task::{Context, Poll, Waker},
};

/// Something that comes once, to a task of the same core.
pub struct Promise<T> {
    value: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
}

impl<T> Default for Promise<T> {
    fn default() -> Self {
        Self { value: RefCell::new(None), waker: RefCell::new(None) }
    }
}

impl<T> Promise<T> {
    /// Here it is.
    pub fn set(&self, value: T) {
        *self.value.borrow_mut() = Some(value);
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes it if it is there; else the task of `cx` is woken by it.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<T> {
        match self.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits for it.
    pub async fn wait(&self) -> T {
        future::poll_fn(|cx| self.poll(cx)).await
    }
}
