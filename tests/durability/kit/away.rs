//! A player who has left, and what they need to come back.

use super::{Hub, Join, Player};

/// Unlike a [`Player`] who stays without reading, nobody for whom a hub that stops would wait.
#[derive(Debug)]
pub(crate) struct Away {
    resume_ticket: String,
    position: String,
}

impl Away {
    #[expect(clippy::needless_pass_by_value, reason = "the player's socket goes")]
    pub(crate) fn leave(player: Player) -> Self {
        Self { resume_ticket: player.resume_ticket(), position: player.position() }
    }

    pub(crate) async fn back(self, hub: &Hub) -> Player {
        Player::join(hub, Join::ticket(self.resume_ticket).resume(self.position)).await
    }
}
