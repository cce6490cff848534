//! A backend: the generated gRPC client, with the calls that tests make most.

use duelhub::pb;
use duelhub::pb::control_service_client::ControlServiceClient;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::TestServer;

/// Panics with the status when a call fails that should not.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    pub(crate) client: ControlServiceClient<Channel>,
}

/// A push of `payload` to `duel`, everything else unset.
pub(crate) fn push(duel_id: u64, payload: &str) -> pb::PushEventRequest {
    pb::PushEventRequest { duel_id, payload_json: payload.to_owned(), ..Default::default() }
}

/// The stable reason of an error, its request id, and the field at fault.
pub(crate) fn error_info(status: &Status) -> (String, String, Option<String>) {
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has a reason");
    assert_eq!(info.domain, "duelhub");
    let field = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
    (info.reason.clone(), info.metadata["request_id"].clone(), field)
}

impl Backend {
    pub(crate) async fn connect(server: &TestServer) -> Self {
        let url = format!("http://{}", server.addresses.control);
        Self { client: ControlServiceClient::connect(url).await.unwrap() }
    }

    pub(crate) async fn open(&self, duel_id: u64, users: &[u64]) {
        let participants =
            users.iter().map(|user_id| pb::Participant { user_id: *user_id, telegram_id: 0 });
        let participants = participants.collect();
        let request = pb::OpenDuelRequest { duel_id, participants, settings: None };
        self.client.clone().open_duel(request).await.unwrap();
    }

    pub(crate) async fn issue(&self, request: pb::IssueTicketRequest) -> pb::IssueTicketResponse {
        self.client.clone().issue_ticket(request).await.unwrap().into_inner()
    }

    pub(crate) async fn ticket(&self, duel_id: u64, user_id: u64) -> String {
        let request = pb::IssueTicketRequest { duel_id, user_id, ..Default::default() };
        self.issue(request).await.ticket
    }

    pub(crate) async fn spectator_ticket(&self, duel_id: u64, user_id: u64) -> String {
        let role = pb::Role::Spectator.into();
        self.issue(pb::IssueTicketRequest { duel_id, user_id, role, ttl: None }).await.ticket
    }

    /// The seq of the event.
    pub(crate) async fn push(&self, duel_id: u64, payload: &str) -> u64 {
        self.push_event(push(duel_id, payload)).await.position.unwrap().seq
    }

    pub(crate) async fn push_event(&self, request: pb::PushEventRequest) -> pb::PushEventResponse {
        self.client.clone().push_event(request).await.unwrap().into_inner()
    }

    pub(crate) async fn close(&self, duel_id: u64) -> pb::CloseDuelResponse {
        let status = pb::DuelStatus::Finished.into();
        let request = pb::CloseDuelRequest { duel_id, status, last_event: None };
        self.client.clone().close_duel(request).await.unwrap().into_inner()
    }

    pub(crate) async fn duel(&self, duel_id: u64) -> pb::Duel {
        let request = pb::GetDuelRequest { duel_id };
        self.client.clone().get_duel(request).await.unwrap().into_inner().duel.unwrap()
    }

    pub(crate) async fn node(&self) -> pb::GetNodeResponse {
        self.client.clone().get_node(pb::GetNodeRequest {}).await.unwrap().into_inner()
    }
}
