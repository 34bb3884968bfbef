//! The commands of LSPS: one JSON object a line, the command's name in `do`.
//!
//! - `{"do": "list_protocols", "lsp": NODE}`
//! - `{"do": "set_webhook", "lsp": NODE, "app_name": …, "url": …}`
//! - `{"do": "list_webhooks", "lsp": NODE}`
//! - `{"do": "remove_webhook", "lsp": NODE, "app_name": …}`
//! - `{"do": "validate", "node": NODE, "timestamp": …, "signature": …, "body": …, "fresh": BOOL}`
//!
//! The first four are answered with `asked`, and in time with an `event` of LDK's; the last one with
//! `validated`.

use crate::liquidity::{liquidity, Liquidity};
use crate::node::Node;
use crate::report::{hex, out, shortened, variant};
use crate::validator::{validate, Notification};
use bitcoin::secp256k1::PublicKey;
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps0::event::LSPS0ClientEvent;
use lightning_liquidity::lsps0::ser::LSPSRequestId;
use lightning_liquidity::lsps5::client::LSPS5ClientConfig;
use lightning_liquidity::lsps5::event::LSPS5ClientEvent;
use lightning_liquidity::lsps5::msgs::LSPS5Error;
use lightning_liquidity::lsps5::validator::LSPS5Validator;
use lightning_liquidity::LiquidityClientConfig;
use serde_json::{json, Value};
use std::str::FromStr;
use std::sync::Arc;

/// The client, and the validator that remembers the signatures it has seen.
pub struct Lsps {
    liquidity: Arc<Liquidity>,
    validator: LSPS5Validator,
}

impl Lsps {
    /// Puts LSPS behind the node's handler of custom messages.
    pub fn new(node: &Node) -> Result<Self, String> {
        let client = LiquidityClientConfig {
            lsps1_client_config: None,
            lsps2_client_config: None,
            lsps5_client_config: Some(LSPS5ClientConfig::default()),
        };
        let made = liquidity(node, client);
        let liquidity = Arc::new(made.map_err(|error| error.to_string())?);
        node.presence.attach(liquidity.clone(), node.wake.clone())?;
        let validator = LSPS5Validator::new();
        Ok(Self {
            liquidity,
            validator,
        })
    }

    /// Does one line.
    pub fn run(&self, line: &str) -> Result<(), String> {
        let command: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        match text(&command, "do")? {
            "validate" => self.validate(&command),
            name => self.ask(name, &command),
        }
    }

    /// Hands LDK a request to send. What LDK itself refuses is never sent.
    fn ask(&self, name: &str, command: &Value) -> Result<(), String> {
        let lsp = public_key(command, "lsp")?;
        let client = self.liquidity.lsps5_client_handler();
        let client = client.ok_or("no LSPS5 client")?;
        let asked = match name {
            "list_protocols" => {
                // LDK keeps the id of this one to itself.
                self.liquidity.lsps0_client_handler().list_protocols(&lsp);
                Ok(None)
            }
            "set_webhook" => {
                let (app, url) = (text(command, "app_name")?, text(command, "url")?);
                client.set_webhook(lsp, app.into(), url.into()).map(Some)
            }
            "list_webhooks" => Ok(Some(client.list_webhooks(lsp))),
            "remove_webhook" => {
                let app = text(command, "app_name")?;
                client.remove_webhook(lsp, app.into()).map(Some)
            }
            _ => return Err("no such command".into()),
        };
        let mut fields = match asked {
            Ok(id) => json!({"ok": true, "id": id.map(|id: LSPSRequestId| id.0)}),
            Err(error) => with_error(json!({"ok": false}), &error),
        };
        fields["do"] = json!(name);
        out("asked", fields);
        Ok(())
    }

    fn validate(&self, command: &Value) -> Result<(), String> {
        let given = Notification {
            timestamp: text(command, "timestamp")?,
            signature: text(command, "signature")?,
            body: text(command, "body")?,
        };
        let lsp = public_key(command, "node")?;
        let answer = if command["fresh"] == json!(true) {
            validate(&LSPS5Validator::new(), lsp, &given)
        } else {
            validate(&self.validator, lsp, &given)
        };
        out("validated", answer);
        Ok(())
    }

    /// Reports LDK's events that wait.
    pub fn report_pending(&self) {
        for event in self.liquidity.get_and_clear_pending_events() {
            let fields = match event {
                LiquidityEvent::LSPS0Client(event) => protocols(event),
                LiquidityEvent::LSPS5Client(event) => webhooks(event),
                other => json!({"event": "other", "detail": shortened(&format!("{other:?}"))}),
            };
            out("event", fields);
        }
    }
}

fn protocols(event: LSPS0ClientEvent) -> Value {
    let LSPS0ClientEvent::ListProtocolsResponse {
        counterparty_node_id: node,
        protocols,
    } = event;
    let node = hex(&node.serialize());
    json!({"event": "ListProtocolsResponse", "node": node, "protocols": protocols})
}

fn webhooks(event: LSPS5ClientEvent) -> Value {
    let debug = format!("{event:?}");
    let (node, id, mut fields) = match event {
        LSPS5ClientEvent::WebhookRegistered {
            counterparty_node_id,
            num_webhooks,
            max_webhooks,
            no_change,
            app_name,
            url,
            request_id,
        } => {
            let fields = json!({
                "num_webhooks": num_webhooks,
                "max_webhooks": max_webhooks,
                "no_change": no_change,
                "app_name": app_name.as_str(),
                "url": url.as_str(),
            });
            (counterparty_node_id, request_id, fields)
        }
        LSPS5ClientEvent::WebhookRegistrationFailed {
            counterparty_node_id,
            error,
            app_name,
            url,
            request_id,
        } => {
            let fields = json!({"app_name": app_name.as_str(), "url": url.as_str()});
            (counterparty_node_id, request_id, with_error(fields, &error))
        }
        LSPS5ClientEvent::WebhooksListed {
            counterparty_node_id,
            app_names,
            max_webhooks,
            request_id,
        } => {
            let names: Vec<&str> = app_names.iter().map(|name| name.as_str()).collect();
            let fields = json!({"app_names": names, "max_webhooks": max_webhooks});
            (counterparty_node_id, request_id, fields)
        }
        LSPS5ClientEvent::WebhookRemoved {
            counterparty_node_id,
            app_name,
            request_id,
        } => {
            let fields = json!({"app_name": app_name.as_str()});
            (counterparty_node_id, request_id, fields)
        }
        LSPS5ClientEvent::WebhookRemovalFailed {
            counterparty_node_id,
            error,
            app_name,
            request_id,
        } => {
            let fields = with_error(json!({"app_name": app_name.as_str()}), &error);
            (counterparty_node_id, request_id, fields)
        }
    };
    fields["event"] = json!(variant(&debug));
    fields["node"] = json!(hex(&node.serialize()));
    fields["id"] = json!(id.0);
    fields
}

fn with_error(mut fields: Value, error: &LSPS5Error) -> Value {
    let (name, code) = match error {
        LSPS5Error::Protocol(error) => (format!("{error:?}"), error.code()),
        LSPS5Error::Client(error) => (format!("{error:?}"), error.code()),
    };
    fields["error"] = json!(name);
    fields["code"] = json!(code);
    fields
}

fn text<'a>(command: &'a Value, name: &str) -> Result<&'a str, String> {
    command[name]
        .as_str()
        .ok_or_else(|| format!("`{name}` takes text"))
}

fn public_key(command: &Value, name: &str) -> Result<PublicKey, String> {
    PublicKey::from_str(text(command, name)?).map_err(|error| format!("{name}: {error}"))
}
