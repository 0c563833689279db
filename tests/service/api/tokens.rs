//! Tokens of an OpenID Connect provider: the owner and the scopes of their claims.

use crate::api::keyed_client::KeyedClient;
use crate::api::server_process::{ServerConfig, small_job};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use p256::pkcs8::EncodePrivateKey;
use serde_json::{Value, json};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Provider with one key.
struct Provider {
    key: EncodingKey,
}

impl Provider {
    fn new() -> Self {
        let key = p256::SecretKey::from_slice(&rand::random::<[u8; 32]>()).unwrap();
        Self { key: EncodingKey::from_ec_der(key.to_pkcs8_der().unwrap().as_bytes()) }
    }

    fn key_set(&self) -> Value {
        let mut key = serde_json::to_value(Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap()).unwrap();
        key["kid"] = json!("first");
        json!({"keys": [key]})
    }

    fn token(&self, subject: &str, scope: &str, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let claims = json!({"iss": "https://login.example.com", "aud": "espalier", "sub": subject, "tenant": subject,
            "exp": now + seconds, "scope": scope});
        let header = Header { kid: Some("first".to_string()), ..Header::new(Algorithm::ES256) };
        encode(&header, &claims, &self.key).unwrap()
    }
}

#[test]
fn a_token_acts_for_the_owner_and_with_the_scopes_of_its_claims() {
    let provider = Provider::new();
    let config = ServerConfig::new();
    let keys = config.folder.path().join("jwks.json");
    fs::write(&keys, provider.key_set().to_string()).unwrap();
    let jwks = keys.to_str().unwrap();
    let app = config
        .with_arguments(&[
            "--jwt-jwks",
            jwks,
            "--jwt-issuer",
            "https://login.example.com",
            "--jwt-audience",
            "espalier",
        ])
        .start();
    assert_eq!(app.get("/jobs").status, 401, "a server that accepts tokens needs one");
    let client = |token: &str| KeyedClient::new(&app, token);
    let alice = client(&provider.token("alice@example.com", "openid predict train adapters:read", 600));
    let current = alice.get("/keys/current").json();
    assert_eq!(current["owner"], "alice@example.com");
    assert_eq!(current["credential"], "jwt:alice@example.com");
    assert_eq!(current["scopes"], json!(["predict", "train", "adapters:read"]));
    let job = alice.train(&small_job(30, json!({"name": "intents", "hyperparameters": {"epochs": 1}})));
    let path = format!("/jobs/{}", job["id"].as_str().unwrap());
    let bob = client(&provider.token("bob", "predict train adapters:read", 600));
    assert_eq!((alice.get(&path).status, bob.get(&path).status), (200, 404));
    assert_eq!(bob.get("/adapters").json()["data"], json!([]));
    assert_eq!(bob.delete("/adapters/intents").json()["code"], "scope_missing");
    let expired = client(&provider.token("alice@example.com", "predict", -600)).get("/jobs");
    assert_eq!((expired.status, expired.json()["code"].as_str()), (401, Some("token_expired")));
    let forged = client(&Provider::new().token("alice@example.com", "predict", 600)).get("/jobs");
    assert_eq!((forged.status, forged.json()["code"].as_str()), (401, Some("token_signature_wrong")));
    let refused = client(&provider.token("a/b", "predict", 600)).get("/base");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("token_claim_invalid")));
}
