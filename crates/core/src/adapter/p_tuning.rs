//! P-tuning: virtual tokens that a small network makes (Liu et al. 2021), three dense layers as PEFT has them. The network
//! serves training alone: what is published are the tokens that it makes.

use super::targets::Check;
use super::virtual_tokens::{self, Encoder, Prompt};
use super::{Form, Ground};
use crate::adapter::{Init, Parameters};
use crate::error::Result;
use crate::model::SiteInfo;
use espalier_tensor::kernels::Activation;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PTuning)]
pub struct Config {
    pub num_virtual_tokens: usize,
    /// Width of the network; the base's own where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_hidden_size: Option<usize>,
    /// Of the rows that the head reads, in training alone.
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { num_virtual_tokens: virtual_tokens::DEFAULT, encoder_hidden_size: None, dropout: 0.0 }
    }
}

/// Beyond this the network would cost more than the base.
const WIDEST: usize = 8192;

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo], max_tokens: usize, hidden: usize) -> Result<Self> {
        let mut check = Check::new(sites);
        virtual_tokens::check_number(&mut check, self.num_virtual_tokens, max_tokens);
        let width = self.encoder_hidden_size.unwrap_or(hidden);
        let message = format!("encoder_hidden_size must be between 1 and {WIDEST}");
        check.require((1..=WIDEST).contains(&width), "encoder_hidden_size", message);
        check.dropout(self.dropout);
        check.finish(|| true)?;
        Ok(Self { encoder_hidden_size: Some(width), ..self.clone() })
    }

    pub fn build(&self, ground: &Ground, parameters: &mut Parameters) -> Prompt {
        let (count, hidden) = (self.num_virtual_tokens, ground.base.info().hidden_size);
        match ground.form {
            Form::Published => {
                let rows = parameters.tensor(virtual_tokens::NAME.to_string(), &[count, hidden], Init::Zeros);
                Prompt::plain(rows, count)
            }
            Form::Training => {
                let width = self.encoder_hidden_size.unwrap_or(hidden);
                let widths = [hidden, width, width, hidden];
                Prompt::encoded(Encoder::build(count, &widths, Activation::Relu, parameters), count)
            }
        }
    }
}
