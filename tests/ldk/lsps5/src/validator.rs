//! LDK's validator, as the proxy between an LSP and a push service would ask it.

use bitcoin::secp256k1::PublicKey;
use lightning_liquidity::lsps0::ser::LSPSDateTime;
use lightning_liquidity::lsps5::msgs::WebhookNotification;
use lightning_liquidity::lsps5::validator::LSPS5Validator;
use serde_json::{json, Value};
use std::str::FromStr;

/// A notification as it came in by HTTP, all of it text.
pub struct Notification<'a> {
    /// The header `x-lsps5-timestamp`.
    pub timestamp: &'a str,
    /// The header `x-lsps5-signature`.
    pub signature: &'a str,
    /// The body.
    pub body: &'a str,
}

/// Asks LDK. Besides its own errors there are two for what its types don't take: `BadTimestamp`
/// and `BadBody`. `timestamp` and `body` are as LDK prints them again: it checks the signature over
/// these, not over what came in.
pub fn validate(validator: &LSPS5Validator, lsp: PublicKey, given: &Notification) -> Value {
    let Ok(timestamp) = LSPSDateTime::from_str(given.timestamp) else {
        return json!({"ok": false, "error": "BadTimestamp"});
    };
    let notification: WebhookNotification = match serde_json::from_str(given.body) {
        Ok(notification) => notification,
        Err(error) => {
            return json!({"ok": false, "error": "BadBody", "detail": error.to_string()});
        }
    };
    let mut answer = match validator.validate(lsp, &timestamp, given.signature, &notification) {
        Ok(valid) => json!({"ok": true, "method": json!(valid)["method"]}),
        Err(error) => json!({"ok": false, "error": format!("{error:?}")}),
    };
    answer["timestamp"] = json!(timestamp.to_rfc3339());
    answer["body"] = json!(serde_json::to_string(&notification).ok());
    answer
}
