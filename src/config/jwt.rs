//! Settings of bearer tokens (JWT) from an OpenID Connect provider.

use super::units;
use crate::http::{ClaimMapping, JwksSource, JwtSettings, ScopeMapping};
use clap::Args;
use espalier_core::error::{Error, Result};
use std::collections::HashMap;
use std::time::Duration;

#[derive(Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Tokens of an OpenID Connect provider")]
pub struct Flags {
    /// File or https:// URL (the provider's jwks_uri) of the keys that sign bearer tokens (JWT). Requires --jwt-issuer and
    /// --jwt-audience [default: none; no JWT is accepted]
    #[arg(long, env = "ESPALIER_JWT_JWKS", value_name = "FILE|URL")]
    pub jwt_jwks: Option<String>,

    /// Accepted issuers (the claim iss), separated by commas
    #[arg(long, env = "ESPALIER_JWT_ISSUER", value_name = "ISSUERS")]
    pub jwt_issuer: Option<String>,

    /// Accepted audiences (the claim aud), separated by commas: the names of this server at the provider
    #[arg(long, env = "ESPALIER_JWT_AUDIENCE", value_name = "AUDIENCES")]
    pub jwt_audience: Option<String>,

    /// Claim that names the owner; a.b is the field b of the claim a
    #[arg(long, env = "ESPALIER_JWT_OWNER_CLAIM", value_name = "CLAIM", default_value = "sub")]
    pub jwt_owner_claim: String,

    /// Claim with the scopes, as text separated by spaces or as a list; realm_access.roles are the roles of Keycloak
    #[arg(long, env = "ESPALIER_JWT_SCOPE_CLAIM", value_name = "CLAIM", default_value = "scope")]
    pub jwt_scope_claim: String,

    /// Prefix of the values that are scopes of this server, which is removed: with espalier:, espalier:train is the scope train
    /// [default: none; every value is a scope]
    #[arg(long, env = "ESPALIER_JWT_SCOPE_PREFIX", value_name = "PREFIX")]
    pub jwt_scope_prefix: Option<String>,

    /// Scopes of values such as groups, separated by commas: ml-admins=admin,ml-users=predict+generate [default: none]
    #[arg(long, env = "ESPALIER_JWT_SCOPE_MAP", value_name = "VALUE=SCOPES")]
    pub jwt_scope_map: Option<String>,

    /// Tolerated difference between the clocks of the provider and this server
    #[arg(long, env = "ESPALIER_JWT_LEEWAY", value_name = "TIME", default_value = "30s", value_parser = units::parse_duration)]
    pub jwt_leeway: Duration,

    /// Interval at which the keys are loaded again; after a failure the old ones stay
    #[arg(long, env = "ESPALIER_JWT_REFRESH_INTERVAL", value_name = "TIME", default_value = "10m", value_parser = units::parse_duration)]
    pub jwt_refresh_interval: Duration,

    /// Minimum time between loads of the keys that tokens with an unknown key cause
    #[arg(long, env = "ESPALIER_JWT_MIN_REFRESH_INTERVAL", value_name = "TIME", default_value = "10s", value_parser = units::parse_duration)]
    pub jwt_min_refresh_interval: Duration,
}

impl Flags {
    /// # Errors
    /// `Invalid` for a URL without encryption, a missing issuer or audience, and a malformed map of scopes.
    pub fn resolve(&self) -> Result<Option<JwtSettings>> {
        let (issuers, audiences) = (split_list(self.jwt_issuer.as_deref()), split_list(self.jwt_audience.as_deref()));
        let Some(jwks) = self.jwt_jwks.as_deref().map(str::trim).filter(|jwks| !jwks.is_empty()) else {
            return match issuers.is_empty() && audiences.is_empty() {
                true => Ok(None),
                false => {
                    Err(incomplete("--jwt-issuer and --jwt-audience need the keys of the provider: set --jwt-jwks"))
                }
            };
        };
        if issuers.is_empty() || audiences.is_empty() {
            return Err(incomplete(
                "--jwt-jwks needs --jwt-issuer and --jwt-audience: without them tokens of other issuers and for other services would \
                 be accepted",
            ));
        }
        Ok(Some(JwtSettings {
            jwks: JwksSource::parse(jwks)?,
            issuers,
            audiences,
            claims: ClaimMapping {
                owner: self.jwt_owner_claim.clone(),
                scope: self.jwt_scope_claim.clone(),
                scopes: ScopeMapping {
                    prefix: self.jwt_scope_prefix.clone().filter(|prefix| !prefix.is_empty()),
                    by_value: parse_scope_map(self.jwt_scope_map.as_deref())?,
                },
            },
            leeway: self.jwt_leeway,
            refresh_interval: self.jwt_refresh_interval,
            min_refresh_interval: self.jwt_min_refresh_interval,
        }))
    }
}

fn incomplete(detail: &str) -> Error {
    Error::invalid("incomplete_jwt_settings", detail)
}

fn split_list(text: Option<&str>) -> Vec<String> {
    let values = text.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    values.filter(|value| !value.is_empty()).map(str::to_string).collect()
}

fn parse_scope_map(text: Option<&str>) -> Result<HashMap<String, Vec<String>>> {
    let parse = |entry: String| {
        let (value, scopes) = entry.split_once('=')?;
        let scopes: Vec<String> = scopes.split('+').map(|scope| scope.trim().to_string()).collect();
        let is_valid = !value.trim().is_empty() && scopes.iter().all(|scope| !scope.is_empty());
        is_valid.then(|| (value.trim().to_string(), scopes))
    };
    split_list(text).into_iter().map(parse).collect::<Option<_>>().ok_or_else(|| {
        Error::invalid(
            "invalid_scope_map",
            "--jwt-scope-map (ESPALIER_JWT_SCOPE_MAP) has the form value=scope or value=scope+scope, separated by commas",
        )
    })
}
