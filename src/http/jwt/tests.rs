//! Tests with keys of each type, a file of keys, and a provider on a loopback address.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use p256::pkcs8::EncodePrivateKey;
use rsa::pkcs1::EncodeRsaPrivateKey;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex as StdMutex};
use tempfile::NamedTempFile;

const NOW: u64 = 1_800_000_000;
const LEEWAY: u64 = 30;

/// Key of the provider with its id.
struct SigningKey {
    id: &'static str,
    key: EncodingKey,
    algorithms: &'static [Algorithm],
}

impl SigningKey {
    /// Key of the set, without `alg` so that it serves every algorithm of its type.
    fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithms[0]).unwrap();
        let mut value = serde_json::to_value(jwk).unwrap();
        value["kid"] = json!(self.id);
        value.as_object_mut().unwrap().remove("alg");
        value
    }

    fn sign(&self, algorithm: Algorithm, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_string()), ..Header::new(algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }
}

fn rsa_key(id: &'static str, bits: usize) -> SigningKey {
    let key = rsa::PrivateKey::new(&mut rand::rng(), bits).unwrap();
    let key = EncodingKey::from_rsa_der(key.to_pkcs1_der().unwrap().as_bytes());
    use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    SigningKey { id, key, algorithms: &[RS256, RS384, RS512, PS256, PS384, PS512] }
}

fn ec_key(id: &'static str) -> SigningKey {
    let key = p256::SecretKey::from_slice(&rand::random::<[u8; 32]>()).unwrap();
    SigningKey {
        id,
        key: EncodingKey::from_ec_der(key.to_pkcs8_der().unwrap().as_bytes()),
        algorithms: &[Algorithm::ES256],
    }
}

fn provider_keys() -> [&'static SigningKey; 4] {
    static KEYS: LazyLock<[SigningKey; 4]> = LazyLock::new(|| {
        let (mut p384, mut ed) = ([1; 48], [0; 32]);
        p384[16..].copy_from_slice(&rand::random::<[u8; 32]>());
        ed.copy_from_slice(&rand::random::<[u8; 32]>());
        let p384 = p384::SecretKey::from_slice(&p384).unwrap().to_pkcs8_der().unwrap();
        let ed = ed25519_dalek::SigningKey::from_bytes(&ed).to_bytes();
        // PKCS#8 of Ed25519 (RFC 8410): a fixed prefix, then the seed.
        let ed = [&hex::decode("302e020100300506032b657004220420").unwrap()[..], &ed[..]].concat();
        [
            rsa_key("rsa", 2048),
            ec_key("p256"),
            SigningKey { id: "p384", key: EncodingKey::from_ec_der(p384.as_bytes()), algorithms: &[Algorithm::ES384] },
            SigningKey { id: "ed25519", key: EncodingKey::from_ed_der(&ed), algorithms: &[Algorithm::EdDSA] },
        ]
    });
    let [rsa, p256, p384, ed25519] = &*KEYS;
    [rsa, p256, p384, ed25519]
}

fn key_set(keys: &[&SigningKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

fn claims() -> Value {
    json!({"iss": "https://login.example.com", "aud": ["other", "espalier"], "sub": "alice", "exp": NOW + 600, "scope": "predict train"})
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[field] = value;
    claims
}

fn without(field: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(field);
    claims
}

fn settings(jwks: JwksSource) -> JwtSettings {
    JwtSettings {
        jwks,
        issuers: vec!["https://login.example.com".into()],
        audiences: vec!["espalier".into()],
        claims: ClaimMapping { owner: "sub".into(), scope: "scope".into(), scopes: ScopeMapping::default() },
        leeway: Duration::from_secs(LEEWAY),
        refresh_interval: Duration::from_secs(3600),
        min_refresh_interval: Duration::from_secs(3600),
    }
}

/// Verifier of the keys of a file, which the caller keeps.
fn file_verifier(keys: &str, change: impl FnOnce(&mut JwtSettings)) -> (Arc<JwtVerifier>, NamedTempFile) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(keys.as_bytes()).unwrap();
    let mut settings = settings(JwksSource::File(file.path().to_path_buf()));
    change(&mut settings);
    (JwtVerifier::start(settings).unwrap(), file)
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", encode(header), encode(claims))
}

#[tokio::test]
async fn tokens_of_every_algorithm_are_accepted() {
    let keys = provider_keys();
    let (verifier, _file) = file_verifier(&key_set(&keys), |_| ());
    for key in keys {
        for &algorithm in key.algorithms {
            let token = key.sign(algorithm, &claims());
            assert!(JwtVerifier::is_jwt(&token));
            for attempt in ["first", "from the cache"] {
                let claims = verifier.verify(&token, NOW).await;
                let claims = claims.unwrap_or_else(|error| panic!("{algorithm:?}, {attempt}: {error}"));
                assert_eq!(claims.owner, "alice");
                assert_eq!(claims.scopes, ["predict", "train"]);
                assert_eq!(claims.expires_at, NOW + 600);
            }
        }
    }
}

#[tokio::test]
async fn times_issuer_audience_and_claims_are_checked() {
    let key = provider_keys()[1];
    let (verifier, _file) = file_verifier(&key_set(&[key]), |_| ());
    let invalid = |claim: &str| Err(JwtError::InvalidClaim(claim.to_string()));
    let cases = [
        (with("exp", json!(NOW - LEEWAY)), Err(JwtError::Expired)),
        (with("exp", json!(NOW - LEEWAY + 1)), Ok(())),
        (with("exp", json!(NOW as f64 + 0.5)), Ok(())),
        (with("exp", json!(-1)), invalid("exp")),
        (with("exp", json!("soon")), invalid("exp")),
        (without("exp"), invalid("exp")),
        (with("nbf", json!(NOW + LEEWAY + 1)), Err(JwtError::NotYetValid)),
        (with("nbf", json!(NOW + LEEWAY)), Ok(())),
        (with("nbf", json!(true)), invalid("nbf")),
        (with("iss", json!("https://evil.example.com")), Err(JwtError::WrongIssuer)),
        (with("iss", json!("https://login.example.com/")), Err(JwtError::WrongIssuer)),
        (without("iss"), invalid("iss")),
        (with("aud", json!("espalier")), Ok(())),
        (with("aud", json!("other")), Err(JwtError::WrongAudience)),
        (with("aud", json!([])), Err(JwtError::WrongAudience)),
        (without("aud"), invalid("aud")),
        (without("sub"), invalid("sub")),
        (with("sub", json!("")), invalid("sub")),
        (with("sub", json!("a\nb")), invalid("sub")),
        (with("sub", json!("x".repeat(256))), invalid("sub")),
        (with("scope", json!({"predict": true})), invalid("scope")),
        (with("scope", json!(["predict", 1])), invalid("scope")),
        (without("scope"), Ok(())),
    ];
    for (claims, expected) in cases {
        let found = verifier.verify(&key.sign(Algorithm::ES256, &claims), NOW).await.map(|_| ());
        assert_eq!(found, expected, "{claims}");
    }
}

#[tokio::test]
async fn cached_token_expires() {
    let key = provider_keys()[1];
    let (verifier, _file) = file_verifier(&key_set(&[key]), |_| ());
    let token = key.sign(Algorithm::ES256, &claims());
    assert!(verifier.verify(&token, NOW).await.is_ok());
    assert!(verifier.verify(&token, NOW + 600 + LEEWAY - 1).await.is_ok());
    assert_eq!(verifier.verify(&token, NOW + 600 + LEEWAY).await, Err(JwtError::Expired));
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let [rsa, p256, ..] = provider_keys();
    let jwks = key_set(&[rsa, p256]);
    let (verifier, _file) = file_verifier(&jwks, |_| ());
    let token = rsa.sign(Algorithm::RS256, &claims());
    let parts: Vec<&str> = token.split('.').collect();
    let admin = URL_SAFE_NO_PAD.encode(with("sub", json!("admin")).to_string());
    let public_key = rsa.jwk();
    let hmac = |secret: &[u8], algorithm: Algorithm| {
        let header = Header { kid: Some("rsa".into()), ..Header::new(algorithm) };
        encode(&header, &claims(), &EncodingKey::from_secret(secret).unwrap()).unwrap()
    };
    let other = ec_key("p256");
    let wrong_key_type = Header { kid: Some("rsa".into()), ..Header::new(Algorithm::ES256) };
    let critical = Header { crit: Some(vec!["exp".into()]), kid: Some("p256".into()), ..Header::new(Algorithm::ES256) };
    let logout = Header { typ: Some("logout+jwt".into()), kid: Some("p256".into()), ..Header::new(Algorithm::ES256) };
    let cases = [
        ("changed claims", format!("{}.{admin}.{}", parts[0], parts[2]), JwtError::WrongSignature),
        ("empty signature", format!("{}.{}.", parts[0], parts[1]), JwtError::WrongSignature),
        ("key of another provider", other.sign(Algorithm::ES256, &claims()), JwtError::WrongSignature),
        ("none", unsigned(&json!({"alg": "none", "kid": "rsa"}), &claims()), JwtError::UnsupportedAlgorithm),
        ("None", unsigned(&json!({"alg": "None", "kid": "rsa"}), &claims()), JwtError::UnsupportedAlgorithm),
        ("no alg", unsigned(&json!({"kid": "rsa"}), &claims()), JwtError::Malformed),
        (
            "modulus as secret",
            hmac(public_key["n"].as_str().unwrap().as_bytes(), Algorithm::HS256),
            JwtError::UnsupportedAlgorithm,
        ),
        ("key as secret", hmac(public_key.to_string().as_bytes(), Algorithm::HS512), JwtError::UnsupportedAlgorithm),
        ("key set as secret", hmac(jwks.as_bytes(), Algorithm::HS384), JwtError::UnsupportedAlgorithm),
        ("algorithm of another key", encode(&wrong_key_type, &claims(), &p256.key).unwrap(), JwtError::UnknownKey),
        ("unknown kid", ec_key("unknown").sign(Algorithm::ES256, &claims()), JwtError::UnknownKey),
        ("critical extension", encode(&critical, &claims(), &p256.key).unwrap(), JwtError::Malformed),
        ("logout token", encode(&logout, &claims(), &p256.key).unwrap(), JwtError::Malformed),
        ("two parts", parts[..2].join("."), JwtError::Malformed),
        ("four parts", format!("{token}.e30"), JwtError::Malformed),
        ("no JWT", "abc.def.ghi".to_string(), JwtError::Malformed),
        ("too long", format!("{token}{}", "a".repeat(MAX_TOKEN_BYTES)), JwtError::TooLong),
    ];
    assert!(verifier.verify(&token, NOW).await.is_ok());
    for (case, token, expected) in cases {
        assert_eq!(verifier.verify(&token, NOW).await, Err(expected), "{case}");
    }
}

#[tokio::test]
async fn token_without_kid_needs_a_single_key_of_its_algorithm() {
    let [rsa, p256, ..] = provider_keys();
    let second = ec_key("second");
    let token = encode(&Header::new(Algorithm::ES256), &claims(), &p256.key).unwrap();
    let (one, _file) = file_verifier(&key_set(&[rsa, p256]), |_| ());
    assert!(one.verify(&token, NOW).await.is_ok());
    let (two, _file) = file_verifier(&key_set(&[rsa, p256, &second]), |_| ());
    assert_eq!(two.verify(&token, NOW).await, Err(JwtError::AmbiguousKey));
}

#[tokio::test]
async fn unusable_keys_are_left_out() {
    let [rsa, p256, ..] = provider_keys();
    let change = |key: &SigningKey, field: &str, value: Value| {
        let mut jwk = key.jwk();
        jwk[field] = value;
        jwk
    };
    let unusable = [
        change(p256, "use", json!("enc")),
        change(p256, "key_ops", json!(["sign"])),
        change(p256, "alg", json!("ES384")),
        change(p256, "alg", json!("RS256")),
        change(p256, "x", json!("AAAA")),
        change(p256, "crv", json!("P-521")),
        change(p256, "crv", json!("secp256k1")),
        change(rsa, "alg", json!("RSA-OAEP")),
        change(rsa, "alg", json!("HS256")),
        change(rsa, "n", json!("!")),
        rsa_key("weak", 1024).jwk(),
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "rsa"}),
        json!({"kty": "new"}),
        json!(7),
    ];
    for jwk in &unusable {
        let error = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap_err();
        assert!(error.contains("no key for signatures"), "{jwk}: {error}");
    }
    let mut keys = unusable.to_vec();
    keys.push(p256.jwk());
    let (verifier, _file) = file_verifier(&json!({ "keys": keys }).to_string(), |_| ());
    assert!(verifier.verify(&p256.sign(Algorithm::ES256, &claims()), NOW).await.is_ok());
}

#[tokio::test]
async fn key_with_an_algorithm_serves_that_algorithm_alone() {
    let rsa = provider_keys()[0];
    let mut jwk = rsa.jwk();
    jwk["alg"] = json!("PS256");
    let (verifier, _file) = file_verifier(&json!({"keys": [jwk]}).to_string(), |_| ());
    assert!(verifier.verify(&rsa.sign(Algorithm::PS256, &claims()), NOW).await.is_ok());
    assert_eq!(verifier.verify(&rsa.sign(Algorithm::RS256, &claims()), NOW).await, Err(JwtError::UnknownKey));
}

#[tokio::test]
async fn claims_are_mapped_to_owner_and_scopes() {
    let key = provider_keys()[1];
    let mapped = async |owner: &str, scope: &str, scopes: ScopeMapping, claims: Value| {
        let mapping = ClaimMapping { owner: owner.into(), scope: scope.into(), scopes };
        let (verifier, _file) = file_verifier(&key_set(&[key]), |settings| settings.claims = mapping);
        let claims = verifier.verify(&key.sign(Algorithm::ES256, &claims), NOW).await.unwrap();
        (claims.owner.clone(), claims.scopes.join(" "))
    };
    let of_keycloak = with("realm_access", json!({"roles": ["train", "predict", "train"]}));
    let plain = ScopeMapping::default;
    assert_eq!(mapped("sub", "realm_access.roles", plain(), of_keycloak).await.1, "train predict");
    let namespaced = with("https://example.com/team.name", json!("blue"));
    assert_eq!(mapped("https://example.com/team.name", "scope", plain(), namespaced).await.0, "blue");
    assert_eq!(mapped("tenant", "scope", plain(), with("tenant", json!(7))).await.0, "7");
    let prefix = ScopeMapping { prefix: Some("espalier:".into()), ..plain() };
    let scopes = with("scope", json!("openid espalier:train profile espalier:predict"));
    assert_eq!(mapped("sub", "scope", prefix, scopes).await.1, "train predict");
    let by_value = [("ml-users".to_string(), vec!["predict".to_string(), "generate".to_string()])].into();
    let groups = with("groups", json!(["staff", "ml-users", "espalier:admin"]));
    let both = ScopeMapping { prefix: Some("espalier:".into()), by_value };
    assert_eq!(mapped("sub", "groups", both, groups).await.1, "predict generate admin");
}

#[test]
fn unreadable_file_and_unencrypted_url_are_refused_at_the_start() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    let start = |source: JwksSource| JwtVerifier::start(settings(source)).err().map(|error| error.to_string());
    assert!(start(JwksSource::File("/nowhere/keys.json".into())).unwrap().contains("/nowhere/keys.json"));
    let file = NamedTempFile::new().unwrap();
    assert!(start(JwksSource::File(file.path().into())).unwrap().contains("not a JSON Web Key Set"));
    std::fs::write(file.path(), r#"{"keys": []}"#).unwrap();
    assert!(start(JwksSource::File(file.path().into())).unwrap().contains("no key for signatures"));
    for url in
        ["http://login.example.com/keys", "ftp://login.example.com/keys", "https://", "http://127.evil.example.com/"]
    {
        assert_eq!(JwksSource::parse(url).unwrap_err().code(), "invalid_jwks_url", "{url}");
    }
    assert!(matches!(JwksSource::parse("http://127.0.0.1:1/keys"), Ok(JwksSource::Url(_))));
    let shown = JwksSource::parse("https://login.example.com/keys?secret=1").unwrap().to_string();
    assert_eq!(shown, "https://login.example.com/keys");
}

/// Provider on a loopback address that counts requests.
struct Provider {
    url: String,
    /// Status line and body of every response.
    response: Arc<StdMutex<(&'static str, String)>>,
    requests: Arc<AtomicUsize>,
}

fn start_provider(status: &'static str, body: String) -> Provider {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let (response, requests) = (Arc::new(StdMutex::new((status, body))), Arc::new(AtomicUsize::new(0)));
    let (shared, count) = (Arc::clone(&response), Arc::clone(&requests));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let (status, body) = shared.lock().unwrap().clone();
            count.fetch_add(1, Ordering::SeqCst);
            let head = format!(
                "HTTP/1.1 {status}\r\nlocation: /other\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice());
        }
    });
    Provider { url, response, requests }
}

#[tokio::test]
async fn rotated_key_is_loaded_once_when_a_token_needs_it() {
    let (old, new) = (ec_key("old"), ec_key("new"));
    let provider = start_provider("200 OK", key_set(&[&old]));
    let mut settings = settings(JwksSource::parse(&provider.url).unwrap());
    settings.min_refresh_interval = Duration::from_millis(300);
    let verifier = JwtVerifier::start(settings).unwrap();
    let old_token = old.sign(Algorithm::ES256, &claims());
    assert!(verifier.verify(&old_token, NOW).await.is_ok());
    tokio::time::sleep(Duration::from_millis(300)).await;
    *provider.response.lock().unwrap() = ("200 OK", key_set(&[&new]));
    let loads = provider.requests.load(Ordering::SeqCst);
    let tokens: Vec<String> = (0..20).map(|n| new.sign(Algorithm::ES256, &with("n", json!(n)))).collect();
    let verified = futures_util::future::join_all(tokens.iter().map(|token| verifier.verify(token, NOW))).await;
    assert!(verified.iter().all(Result::is_ok), "{verified:?}");
    assert_eq!(provider.requests.load(Ordering::SeqCst), loads + 1, "one load serves all requests");
    assert_eq!(verifier.verify(&old_token, NOW).await, Err(JwtError::UnknownKey), "the cache ends with the keys");
    for n in 0..20 {
        let token = ec_key("unknown").sign(Algorithm::ES256, &with("n", json!(n)));
        assert_eq!(verifier.verify(&token, NOW).await, Err(JwtError::UnknownKey));
    }
    assert!(provider.requests.load(Ordering::SeqCst) <= loads + 3, "unknown keys are rate-limited");
}

#[tokio::test]
async fn failed_load_keeps_the_keys_and_is_repeated() {
    let key = ec_key("key");
    let provider = start_provider("503 Service Unavailable", String::new());
    let mut settings = settings(JwksSource::parse(&provider.url).unwrap());
    settings.refresh_interval = Duration::from_millis(50);
    let verifier = JwtVerifier::start(settings).unwrap();
    let token = key.sign(Algorithm::ES256, &claims());
    assert_eq!(verifier.verify(&token, NOW).await, Err(JwtError::KeysUnavailable));
    *provider.response.lock().unwrap() = ("200 OK", key_set(&[&key]));
    while verifier.verify(&token, NOW).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for response in
        [("500 Internal Server Error", String::new()), ("302 Found", key_set(&[])), ("200 OK", "<html>".into())]
    {
        *provider.response.lock().unwrap() = response;
        let loads = provider.requests.load(Ordering::SeqCst);
        while provider.requests.load(Ordering::SeqCst) < loads + 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let another = key.sign(Algorithm::ES256, &with("jti", json!(loads)));
        assert!(verifier.verify(&another, NOW).await.is_ok());
    }
}
