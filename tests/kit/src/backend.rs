//! A backend: the generated gRPC client, with the calls that tests make most.

use std::time::Duration;

use duelhub::pb;
use duelhub::pb::control_service_client::ControlServiceClient;
use duelhub::pb::revoke_tickets_request::Tickets;
use duelhub::server::Addresses;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::{Join, Player, Reachable};

/// How a backend calls: with its token, if it has one.
pub type Client = ControlServiceClient<InterceptedService<Channel, Token>>;

/// `CONTROL_TOKEN`.
#[derive(Debug, Clone, Default)]
pub struct Token(Option<String>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let header = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    }
}

/// The backend of one hub. Calls that say nothing of a failure panic with its status.
#[derive(Debug, Clone)]
pub struct Backend {
    /// For every other call.
    pub client: Client,
    addresses: Addresses,
}

/// A push of `payload` to `duel`, everything else unset.
pub fn push(duel_id: u64, payload: &str) -> pb::PushEventRequest {
    pb::PushEventRequest { duel_id, payload_json: payload.to_owned(), ..Default::default() }
}

/// The push of a number, which is its key as well.
pub fn numbered(duel_id: u64, n: u64) -> pb::PushEventRequest {
    let idempotency_key = n.to_string();
    pb::PushEventRequest { idempotency_key, ..push(duel_id, &format!(r#"{{"n":{n}}}"#)) }
}

/// The stable reason of an error, its request id, and the field at fault.
pub fn error_info(status: &Status) -> (String, String, Option<String>) {
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has a reason");
    assert_eq!(info.domain, "duelhub");
    let field = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
    (info.reason.clone(), info.metadata["request_id"].clone(), field)
}

/// A call was refused with this code and reason, which blame no field.
pub fn assert_refused(status: &Status, code: Code, reason: &str) {
    let (known, _, field) = error_info(status);
    assert_eq!((status.code(), known.as_str(), field), (code, reason, None), "{status:?}");
}

impl Backend {
    /// Connects; fails if the hub does not listen.
    pub async fn connect(hub: &impl Reachable) -> Self {
        Self::try_connect(hub).await.unwrap()
    }

    /// Connects, if the hub listens.
    pub async fn try_connect(hub: &impl Reachable) -> Result<Self, tonic::transport::Error> {
        let channel = endpoint(hub).connect().await?;
        Ok(Self::on(channel, hub, Token::default()))
    }

    /// One that connects by itself whenever it has to, and finds a hub again that was away.
    pub fn lazy(hub: &impl Reachable) -> Self {
        Self::on(endpoint(hub).connect_lazy(), hub, Token::default())
    }

    /// One that shows a token.
    pub fn with_token(hub: &impl Reachable, token: &str) -> Self {
        Self::on(endpoint(hub).connect_lazy(), hub, Token(Some(token.to_owned())))
    }

    /// One that leaves most of what it is answered unread: its window is soon full.
    pub async fn with_small_window(hub: &impl Reachable) -> Self {
        let channel = endpoint(hub).initial_stream_window_size(1024).connect().await.unwrap();
        Self::on(channel, hub, Token::default())
    }

    fn on(channel: Channel, hub: &impl Reachable, token: Token) -> Self {
        let client = ControlServiceClient::with_interceptor(channel, token);
        Self { client, addresses: hub.addresses() }
    }

    /// Declares a duel between these users.
    pub async fn open(&self, duel_id: u64, users: &[u64]) -> pb::OpenDuelResponse {
        self.try_open(duel_id, users).await.unwrap()
    }

    /// Declares a duel between these users.
    pub async fn try_open(
        &self,
        duel_id: u64,
        users: &[u64],
    ) -> Result<pb::OpenDuelResponse, Status> {
        let participants =
            users.iter().map(|user_id| pb::Participant { user_id: *user_id, telegram_id: 0 });
        let participants = participants.collect();
        let request = pb::OpenDuelRequest { duel_id, participants, settings: None, reopen: false };
        Ok(self.client.clone().open_duel(request).await?.into_inner())
    }

    /// Issues whatever ticket is asked for.
    pub async fn issue(&self, request: pb::IssueTicketRequest) -> pb::IssueTicketResponse {
        self.client.clone().issue_ticket(request).await.unwrap().into_inner()
    }

    /// A ticket of a player.
    pub async fn try_issue(
        &self,
        duel_id: u64,
        user_id: u64,
    ) -> Result<pb::IssueTicketResponse, Status> {
        let request = pb::IssueTicketRequest { duel_id, user_id, ..Default::default() };
        Ok(self.client.clone().issue_ticket(request).await?.into_inner())
    }

    /// The text of a ticket of a player.
    pub async fn ticket(&self, duel_id: u64, user_id: u64) -> String {
        self.try_issue(duel_id, user_id).await.unwrap().ticket
    }

    /// The text of a ticket of a spectator.
    pub async fn spectator_ticket(&self, duel_id: u64, user_id: u64) -> String {
        let role = pb::Role::Spectator.into();
        self.issue(pb::IssueTicketRequest { duel_id, user_id, role, ttl: None }).await.ticket
    }

    /// Somebody who comes in as a player.
    pub async fn player(&self, duel: u64, user: u64) -> Player {
        Player::join(&self.addresses, Join::ticket(self.ticket(duel, user).await)).await
    }

    /// Somebody who comes in as a spectator.
    pub async fn spectator(&self, duel: u64, user: u64) -> Player {
        let ticket = self.spectator_ticket(duel, user).await;
        Player::join(&self.addresses, Join::ticket(ticket)).await
    }

    /// A player who comes in and asks to go on after `position`.
    pub async fn resuming(&self, duel: u64, user: u64, position: impl Into<String>) -> Player {
        let join = Join::ticket(self.ticket(duel, user).await).resume(position);
        Player::join(&self.addresses, join).await
    }

    /// Pushes: the seq of the event.
    pub async fn push(&self, duel_id: u64, payload: &str) -> u64 {
        self.push_event(push(duel_id, payload)).await.position.unwrap().seq
    }

    /// Pushes whatever is asked for.
    pub async fn push_event(&self, request: pb::PushEventRequest) -> pb::PushEventResponse {
        self.try_push(request).await.unwrap()
    }

    /// Pushes whatever is asked for.
    pub async fn try_push(
        &self,
        request: pb::PushEventRequest,
    ) -> Result<pb::PushEventResponse, Status> {
        Ok(self.client.clone().push_event(request).await?.into_inner())
    }

    /// Ends a duel as finished.
    pub async fn close(&self, duel_id: u64) -> pb::CloseDuelResponse {
        self.try_close(duel_id, pb::DuelStatus::Finished).await.unwrap()
    }

    /// Ends a duel.
    pub async fn try_close(
        &self,
        duel_id: u64,
        status: pb::DuelStatus,
    ) -> Result<pb::CloseDuelResponse, Status> {
        let request = pb::CloseDuelRequest { duel_id, status: status.into(), last_event: None };
        Ok(self.client.clone().close_duel(request).await?.into_inner())
    }

    /// What the hub says of a duel, which must be there.
    pub async fn duel(&self, duel_id: u64) -> pb::Duel {
        self.try_duel(duel_id).await.unwrap()
    }

    /// What the hub says of a duel.
    pub async fn try_duel(&self, duel_id: u64) -> Result<pb::Duel, Status> {
        let found = self.client.clone().get_duel(pb::GetDuelRequest { duel_id }).await?;
        Ok(found.into_inner().duel.unwrap())
    }

    /// What the hub says of itself.
    pub async fn node(&self) -> pb::GetNodeResponse {
        self.client.clone().get_node(pb::GetNodeRequest {}).await.unwrap().into_inner()
    }

    /// Revokes tickets.
    pub async fn try_revoke(&self, tickets: Tickets) -> Result<(), Status> {
        let request = pb::RevokeTicketsRequest { tickets: Some(tickets) };
        self.client.clone().revoke_tickets(request).await?;
        Ok(())
    }

    /// Revokes one ticket.
    pub async fn revoke_ticket(&self, jti: impl Into<String>) {
        self.try_revoke(Tickets::Jti(jti.into())).await.unwrap();
    }

    /// Revokes all tickets that a user has by now.
    pub async fn revoke_user(&self, duel_id: u64, user_id: u64) {
        self.try_revoke(Tickets::User(pb::UserTickets { duel_id, user_id })).await.unwrap();
    }
}

/// Gives no attempt to connect long.
fn endpoint(hub: &impl Reachable) -> Endpoint {
    let endpoint = Endpoint::from_shared(format!("http://{}", hub.addresses().control)).unwrap();
    endpoint.connect_timeout(Duration::from_secs(5))
}
