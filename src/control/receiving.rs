//! The message of a request that is under way: gRPC's framing, followed as bytes come in, or a message without one.
//!
//! What has come of a message is kept until all of it has. So its length is held against the bounds of [`super::peer`] as soon as it
//! is known. A message that comes in one frame is never held.

use std::sync::Arc;

use super::peer::Peer;
use super::status::Failure;
use crate::limits;

/// Bytes before each message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// What has come of a message.
pub(super) struct Receiving {
    peer: Arc<Peer>,
    is_framed: bool,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Bytes that are to come after a whole head.
    missing: usize,
    /// Bytes that are held for it.
    held: usize,
}

impl Receiving {
    /// `is_framed`: its messages have the frame of gRPC. Otherwise it is one message, to its end.
    pub(super) const fn new(peer: Arc<Peer>, is_framed: bool) -> Self {
        Self { peer, is_framed, head: [0; HEAD_BYTES], head_bytes: 0, missing: 0, held: 0 }
    }

    /// Returns whether part of a message has come.
    pub(super) const fn is_under_way(&self) -> bool {
        self.head_bytes > 0
    }

    /// Takes the next bytes. Returns whether a message is complete with them.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<bool, Failure> {
        if !self.is_framed {
            return self.hold(self.held + bytes.len()).map(|()| false);
        }
        let mut completes = false;
        while !bytes.is_empty() {
            if self.head_bytes < HEAD_BYTES {
                let count = bytes.len().min(HEAD_BYTES - self.head_bytes);
                let (of_head, rest) = bytes.split_at(count);
                self.head[self.head_bytes..][..count].copy_from_slice(of_head);
                self.head_bytes += count;
                bytes = rest;
                if self.head_bytes < HEAD_BYTES {
                    break;
                }
                self.missing = self.length();
            } else {
                let count = bytes.len().min(self.missing);
                self.missing -= count;
                bytes = &bytes[count..];
            }
            if self.missing == 0 {
                (self.head_bytes, completes) = (0, true);
            }
        }
        // The library makes room for all of a message once it knows its length. One that is too long it refuses.
        let length = if self.head_bytes == HEAD_BYTES { self.length() } else { 0 };
        self.hold(self.head_bytes + length.min(limits::GRPC_MESSAGE_BYTES_MAX))?;
        Ok(completes)
    }

    fn length(&self) -> usize {
        let [_compressed, length @ ..] = self.head;
        u32::from_be_bytes(length).try_into().unwrap_or(usize::MAX)
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Failure> {
        if bytes > self.held {
            self.peer.hold_request(bytes - self.held)?;
        } else if bytes < self.held {
            self.peer.give_back_request(self.held - bytes);
        }
        self.held = bytes;
        Ok(())
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.peer.give_back_request(self.held);
    }
}
