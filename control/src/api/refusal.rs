//! Answers that are not a success.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use vxlane_dataplane::engine::WorkerGone;

use super::types::{ApiError, Problem};
use crate::{
    causes::chain,
    daemon::{
        ChangeError, FdbError, FlowsError, MetricsError, NatError, NoSuchEndpoint, NoSuchNetwork, ReloadError,
        StartError,
    },
    desired::{self, Refused},
    netlink::PairError,
};

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    body: ApiError,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>, field: Option<&str>) -> Self {
        let (code, field) = (code.to_owned(), field.map(str::to_owned));
        Self { status, body: ApiError { code, message: message.into(), field, problems: Vec::new() } }
    }

    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", chain(error), None)
    }

    fn with_problems(mut self, problems: &[desired::Problem]) -> Self {
        let told = |problem: &desired::Problem| {
            let desired::Problem { field, value, reason } = problem.clone();
            Problem { field, value, reason }
        };
        self.body.field = problems.first().map(|problem| problem.field.clone());
        self.body.problems = problems.iter().map(told).collect();
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::NotFound { what, .. } => Self::new(StatusCode::NOT_FOUND, "not_found", message, Some(what)),
            Refused::OwnedByFile { what, .. } => Self::new(StatusCode::CONFLICT, "owned_by_file", message, Some(what)),
            Refused::Conflict(problem) => {
                Self::new(StatusCode::CONFLICT, "conflict", message, None).with_problems(&[problem])
            }
            Refused::Invalid(problems) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid", message, None).with_problems(&problems)
            }
        }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(refused) => refused.into(),
            ChangeError::NoNetwork(error) => error.into(),
            ChangeError::NoEndpoint(error) => error.into(),
            ChangeError::Store(error) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", chain(&error), None)
            }
            ChangeError::Pair(error @ PairError::Netns { .. }) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid", chain(&error), Some("netns"))
            }
            ChangeError::Pair(error @ PairError::Exists { .. }) => {
                Self::new(StatusCode::CONFLICT, "conflict", chain(&error), Some("ifname"))
            }
            ChangeError::Pair(PairError::Step { .. }) | ChangeError::Host(_) | ChangeError::Failed(_) => {
                Self::internal(&error)
            }
        }
    }
}

impl From<ReloadError> for Refusal {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Change(error) => error.into(),
            ReloadError::Config(_) => Self::new(StatusCode::BAD_REQUEST, "invalid", chain(&error), None),
            ReloadError::Program { .. } => Self::new(StatusCode::CONFLICT, "conflict", chain(&error), None),
            ReloadError::Signal(_) => Self::internal(&error),
        }
    }
}

impl From<NoSuchNetwork> for Refusal {
    fn from(error: NoSuchNetwork) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", error.to_string(), Some("network"))
    }
}

impl From<NoSuchEndpoint> for Refusal {
    fn from(error: NoSuchEndpoint) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", error.to_string(), Some("endpoint"))
    }
}

impl From<FdbError> for Refusal {
    fn from(error: FdbError) -> Self {
        match error {
            FdbError::NoSuchNetwork(error) => error.into(),
            FdbError::Gone(_) => Self::internal(&error),
        }
    }
}

impl From<NatError> for Refusal {
    fn from(error: NatError) -> Self {
        match error {
            NatError::NoSuchNetwork(error) => error.into(),
            NatError::Gone(_) => Self::internal(&error),
        }
    }
}

impl From<FlowsError> for Refusal {
    fn from(error: FlowsError) -> Self {
        match error {
            FlowsError::NoSuchNetwork(error) => error.into(),
            FlowsError::Gone(_) | FlowsError::Lane(_) => Self::internal(&error),
        }
    }
}

impl From<MetricsError> for Refusal {
    fn from(error: MetricsError) -> Self {
        Self::internal(&error)
    }
}

impl From<WorkerGone> for Refusal {
    fn from(error: WorkerGone) -> Self {
        Self::internal(&error)
    }
}

impl From<StartError> for Refusal {
    fn from(error: StartError) -> Self {
        Self::internal(&error)
    }
}

impl From<std::convert::Infallible> for Refusal {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
