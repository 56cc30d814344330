//! The error codes of the bot service, and what each means for the next attempt.

use http::StatusCode;

/// What a refusal means for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalMeaning {
    /// The token is refused. A new one may be accepted.
    TokenRefused,
    /// The message or the conversation does not exist.
    NotFound,
    /// Nothing was posted: try again soon.
    NotNow,
    /// Too many calls: pause, and try again.
    TooMany,
    /// The message may have been posted.
    Unclear,
    /// An operator has to change something first.
    AfterFix,
    /// Teams refuses this one message.
    FewTimes,
}

impl RefusalMeaning {
    /// The meaning of a refusal whose code is not known.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::TokenRefused,
            StatusCode::NOT_FOUND | StatusCode::GONE => Self::NotFound,
            StatusCode::PRECONDITION_FAILED => Self::NotNow,
            StatusCode::TOO_MANY_REQUESTS => Self::TooMany,
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Self::FewTimes
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Self::Unclear,
            status if status.is_server_error() => Self::Unclear,
            _ => Self::AfterFix,
        }
    }
}

/// An error code of the bot service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KnownRefusal {
    status: u16,
    code: &'static str,
    /// What the code means for the next attempt.
    pub(super) meaning: RefusalMeaning,
    /// For the operator.
    pub(super) text: &'static str,
}

const fn known(status: u16, code: &'static str, meaning: RefusalMeaning, text: &'static str) -> KnownRefusal {
    KnownRefusal { status, code, meaning, text }
}

/// Every known code. `BotNotInConversationRoster` comes with two statuses.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/bots/build-conversational-capability> and
/// <https://learn.microsoft.com/en-us/microsoftteams/platform/bots/how-to/rate-limit>
#[rustfmt::skip]
const CODES: [KnownRefusal; 20] = [
    known(400, "BadArgument", RefusalMeaning::FewTimes, "the message is malformed"),
    known(400, "BadSyntax", RefusalMeaning::FewTimes, "the message is malformed"),
    known(401, "BotNotRegistered", RefusalMeaning::AfterFix, "the app has no Azure Bot with the Teams channel"),
    known(403, "BotDisabledByAdmin", RefusalMeaning::AfterFix, "an administrator of the tenant has disabled the bot"),
    known(403, "BotNotInConversationRoster", RefusalMeaning::AfterFix, "add the app to the team or chat"),
    known(403, "ConversationBlockedByUser", RefusalMeaning::AfterFix, "the person or the channel's moderation has blocked the bot"),
    known(403, "ForbiddenOperationException", RefusalMeaning::AfterFix, "the app is not installed for the person"),
    known(403, "InvalidBotApiHost", RefusalMeaning::AfterFix, "the conversation is at another host"),
    known(403, "MessageWritesBlocked", RefusalMeaning::AfterFix, "the person has blocked or removed the bot"),
    known(403, "NotEnoughPermissions", RefusalMeaning::AfterFix, "the bot lacks a permission"),
    known(404, "ActivityNotFoundInConversation", RefusalMeaning::NotFound, "the message was deleted"),
    known(404, "BotNotInConversationRoster", RefusalMeaning::AfterFix, "add the app to the team or chat"),
    known(404, "ConversationNotFound", RefusalMeaning::NotFound, "there is no such conversation"),
    known(412, "PreconditionFailed", RefusalMeaning::NotNow, "several calls at once"),
    known(413, "MessageSizeTooBig", RefusalMeaning::FewTimes, "the message is too large"),
    known(429, "Throttled", RefusalMeaning::TooMany, "too many messages"),
    known(500, "ServiceError", RefusalMeaning::Unclear, "an error of Teams"),
    known(502, "ServiceError", RefusalMeaning::Unclear, "an error of Teams"),
    known(503, "ServiceUnavailable", RefusalMeaning::Unclear, "Teams is unavailable"),
    known(504, "GatewayTimeout", RefusalMeaning::Unclear, "an error of Teams"),
];

/// Looks a code up.
pub(super) fn find_code(status: u16, code: &str) -> Option<&'static KnownRefusal> {
    CODES.iter().find(|known| known.status == status && known.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_means_what_its_status_means_unless_it_says_more() {
        for known in &CODES {
            let of_status = RefusalMeaning::of_status(StatusCode::from_u16(known.status).unwrap());
            let says_more = ["BotNotRegistered", "BotNotInConversationRoster"].contains(&known.code);
            assert!(says_more || known.meaning == of_status, "{known:?}");
        }
        assert_eq!(find_code(404, "Throttled"), None);
        assert_eq!(RefusalMeaning::of_status(StatusCode::IM_A_TEAPOT), RefusalMeaning::AfterFix);
    }
}
