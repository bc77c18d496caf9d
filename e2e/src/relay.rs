//! Carries the bytes of one connection over a link, as the link's faults allow.

use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::net::{Direction, LinkFault, LinkView, OnceEffect};

/// Bytes carried at a time.
const PIECE: usize = 64 * 1024;

/// The connection did not end, it broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// Carries both ways until both sides closed, or something broke.
pub(crate) async fn relay<NR, NW, FR, FW>(
    near: (&mut NR, &mut NW),
    far: (&mut FR, &mut FW),
    view: LinkView,
) -> Result<(), Broken>
where
    NR: AsyncRead + Unpin,
    NW: AsyncWrite + Unpin,
    FR: AsyncRead + Unpin,
    FW: AsyncWrite + Unpin,
{
    let forth = Carrier::new(view.clone(), Direction::Forth);
    let back = Carrier::new(view, Direction::Back);
    tokio::try_join!(forth.carry(near.0, far.1), back.carry(far.0, near.1))?;
    Ok(())
}

/// Closes a socket with a reset, not with a clean end.
pub(crate) fn reset(read: OwnedReadHalf, write: OwnedWriteHalf) {
    // Where it cannot be asked for, the peer sees an end in the middle: nearly as good.
    let _asked = write.as_ref().set_zero_linger();
    // Dropping the write half would send a clean end first.
    write.forget();
    drop(read);
}

struct Carrier {
    view: LinkView,
    direction: Direction,
    /// Bytes vanished: the stream has a gap, and must not go on when the link heals.
    has_gap: bool,
}

impl Carrier {
    fn new(view: LinkView, direction: Direction) -> Self {
        Self {
            view,
            direction,
            has_gap: false,
        }
    }

    async fn carry(
        mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Broken> {
        let mut piece = vec![0; PIECE];
        loop {
            self.wait_while_paused().await?;
            let read = tokio::select! {
                () = self.view.changed() => continue,
                read = from.read(&mut piece) => read.map_err(|_| Broken)?,
            };
            let fault = self.check()?;
            if !fault.delay.is_zero() {
                tokio::time::sleep(fault.delay).await;
            }
            self.wait_while_paused().await?;
            if read == 0 {
                self.wait_while_lost().await?;
                return to.shutdown().await.map_err(|_| Broken);
            }
            let fault = self.check()?;
            if self.is_lost(fault) {
                self.has_gap = true;
                continue;
            }
            let passes = self.pass_onces(&mut piece[..read]);
            self.write(to, &piece[..passes]).await?;
            if passes < read {
                return Err(Broken);
            }
        }
    }

    fn is_lost(&self, fault: LinkFault) -> bool {
        match self.direction {
            Direction::Forth => fault.lose_forth,
            Direction::Back => fault.lose_back,
        }
    }

    fn check(&mut self) -> Result<LinkFault, Broken> {
        let fault = self.view.fault();
        if fault.cut || (self.has_gap && !self.is_lost(fault)) {
            return Err(Broken);
        }
        Ok(fault)
    }

    async fn wait_while_paused(&mut self) -> Result<(), Broken> {
        while self.check()?.paused {
            self.view.changed().await;
        }
        Ok(())
    }

    /// The end of a stream is lost as its bytes are.
    async fn wait_while_lost(&mut self) -> Result<(), Broken> {
        loop {
            let fault = self.check()?;
            if !self.is_lost(fault) {
                return Ok(());
            }
            self.view.changed().await;
        }
    }

    async fn write(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        bytes: &[u8],
    ) -> Result<(), Broken> {
        let mut writing = pin!(to.write_all(bytes));
        loop {
            tokio::select! {
                written = &mut writing => return written.map_err(|_| Broken),
                () = self.view.changed() => { self.check()?; }
            }
        }
    }

    /// Lets the one-shot faults see the bytes; says how many of them pass.
    fn pass_onces(&self, piece: &mut [u8]) -> usize {
        let mut passes = piece.len();
        for once in self.view.onces(self.direction) {
            let Some(hit) = once.pass(piece.len()) else {
                continue;
            };
            match once.effect {
                OnceEffect::Flip => piece[hit] ^= 1,
                OnceEffect::Cut => passes = passes.min(hit),
                OnceEffect::Tell => {}
            }
        }
        passes
    }
}
