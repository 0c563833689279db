//! A GGUF file's tensors under transformers' names, and with its order of rows.

use super::{Gguf, blocks};
use crate::error::Result;
use crate::model::weights::{Stored, Weights, damaged};
use candle_core::Device;
use candle_core::quantized::gguf_file::Content;
use candle_core::quantized::{GgmlDType, QTensor};
use espalier_tensor::Tensor;
use espalier_tensor::raw::{Form, Raw};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// # Errors
/// `Invalid` where the file does not say how many heads there are.
pub fn read(gguf: &Gguf, canonical: impl Fn(&str) -> Option<String>) -> Result<Weights> {
    let architecture = gguf.architecture()?;
    let count = |field: &str| gguf.whole(&format!("{architecture}.attention.{field}"));
    let heads = gguf.needed("attention.head_count", count("head_count"))? as usize;
    let key_heads = count("head_count_kv").map_or(heads, |heads| heads as usize);
    let mut tensors: BTreeMap<String, Box<dyn Stored>> = BTreeMap::new();
    for (name, info) in &gguf.content.tensor_infos {
        let named = if architecture == "gpt2" { gpt2(name) } else { transformers(name) };
        let Some((theirs, part)) = named else { continue };
        let Some(ours) = canonical(&theirs) else { continue };
        let turned = match (architecture, part) {
            ("llama", "attn_q") => Some(heads),
            ("llama", "attn_k") => Some(key_heads),
            _ => None,
        };
        tensors.insert(ours, Box::new(Place::new(gguf, name, info.shape.dims(), turned)));
    }
    Ok(Weights::of(tensors))
}

/// A tensor that is none of transformers'.
///
/// # Errors
/// `Invalid` (`base_model_damaged`) where it is missing or damaged.
pub fn numbers(gguf: &Gguf, name: &str) -> Result<Vec<f32>> {
    let info = gguf.needed(&format!("the tensor {name}"), gguf.content.tensor_infos.get(name))?;
    let place = Place::new(gguf, name, info.shape.dims(), None);
    let (tensor, _) = place.read().map_err(|reason| damaged(&gguf.path, &format!("{name}: {reason}")))?;
    Ok(tensor.values)
}

/// What transformers calls a tensor, and the file's word for its part of a layer.
fn transformers(name: &str) -> Option<(String, &str)> {
    match name {
        "token_embd.weight" => return Some(("embed_tokens.weight".to_string(), name)),
        "output.weight" => return Some(("lm_head.weight".to_string(), name)),
        "output_norm.weight" => return Some(("norm.weight".to_string(), name)),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = rest.split_once('.')?;
    let module = match part {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some((format!("layers.{layer}.{module}.{kind}"), part))
}

/// The same of GPT-2.
fn gpt2(name: &str) -> Option<(String, &str)> {
    let (path, kind) = name.rsplit_once('.')?;
    let outside = |theirs: &str| Some((format!("{theirs}.{kind}"), name));
    match path {
        "token_embd" => return outside("wte"),
        "position_embd" => return outside("wpe"),
        "output_norm" => return outside("ln_f"),
        "output" => return outside("lm_head"),
        _ => {}
    }
    let (layer, part) = path.strip_prefix("blk.")?.split_once('.')?;
    let module = match part {
        "attn_norm" => "ln_1",
        "attn_qkv" => "attn.c_attn",
        "attn_output" => "attn.c_proj",
        "ffn_norm" => "ln_2",
        "ffn_up" => "mlp.c_fc",
        "ffn_down" => "mlp.c_proj",
        _ => return None,
    };
    Some((format!("h.{layer}.{module}.{kind}"), part))
}

struct Place {
    path: PathBuf,
    content: Arc<Content>,
    name: String,
    shape: Vec<usize>,
    /// Heads whose rows llama.cpp keeps in pairs that are turned together; transformers has all first ones, then all second.
    turned: Option<usize>,
}

impl Stored for Place {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn raw(&self) -> std::result::Result<(Raw, [u8; 32]), String> {
        let (stored, digest) = self.stored()?;
        let form = match stored.dtype() {
            GgmlDType::F16 => Form::F16,
            GgmlDType::BF16 => Form::Bf16,
            GgmlDType::Q8_0 => Form::Q8_0,
            GgmlDType::Q4_0 => Form::Q4_0,
            GgmlDType::Q4_1 => Form::Q4_1,
            other => match blocks::wide(other) {
                Some(form) => form,
                None => return self.numbers(&stored).map(|tensor| (Raw::Numbers(tensor), digest)),
            },
        };
        match self.shape.as_slice() {
            [output, input] if input.is_multiple_of(32) => {
                let bytes = stored.data().map_err(|error| error.to_string())?;
                let bytes = match blocks::taken_apart(stored.dtype(), &bytes) {
                    Some(blocks) => blocks,
                    None => bytes.into_owned(),
                };
                let bytes = match self.turned {
                    None => bytes,
                    Some(heads) => in_halves(&bytes, heads, *output)?,
                };
                Ok((Raw::Blocks { form, shape: [*output, *input], bytes }, digest))
            }
            _ => self.numbers(&stored).map(|tensor| (Raw::Numbers(tensor), digest)),
        }
    }

    fn read(&self) -> std::result::Result<(Tensor, [u8; 32]), String> {
        let (stored, digest) = self.stored()?;
        Ok((self.numbers(&stored)?, digest))
    }
}

impl Place {
    fn new(gguf: &Gguf, name: &str, shape: &[usize], turned: Option<usize>) -> Self {
        let (path, content) = (gguf.path.clone(), Arc::clone(&gguf.content));
        Self { path, content, name: name.to_string(), shape: shape.to_vec(), turned }
    }

    fn stored(&self) -> std::result::Result<(QTensor, [u8; 32]), String> {
        let candle = |error: candle_core::Error| error.to_string();
        let mut file = BufReader::new(File::open(&self.path).map_err(|error| error.to_string())?);
        let stored = self.content.tensor(&mut file, &self.name, &Device::Cpu).map_err(candle)?;
        let mut hash = Sha256::new();
        hash.update(format!("{:?}{:?}", stored.dtype(), self.shape));
        hash.update(stored.data().map_err(candle)?);
        Ok((stored, hash.finalize().into()))
    }

    fn numbers(&self, stored: &QTensor) -> std::result::Result<Tensor, String> {
        let candle = |error: candle_core::Error| error.to_string();
        let all = stored.dequantize(&Device::Cpu).and_then(|tensor| tensor.flatten_all()?.to_vec1()).map_err(candle)?;
        let values = match self.turned {
            None => all,
            Some(heads) => in_halves(&all, heads, self.shape[0])?,
        };
        Ok(Tensor::new(self.shape.clone(), values))
    }
}

/// The rows of every head with the first ones of the pairs first.
fn in_halves<T: Copy>(all: &[T], heads: usize, rows: usize) -> std::result::Result<Vec<T>, String> {
    if heads == 0 || !rows.is_multiple_of(2 * heads) {
        return Err(format!("{rows} rows are not pairs of {heads} heads"));
    }
    let (width, half) = (all.len() / rows, rows / heads / 2);
    let row = |index: usize| &all[index * width..(index + 1) * width];
    let from = |index: usize| {
        let (head, place) = (index / (2 * half), index % (2 * half));
        head * 2 * half + place % half * 2 + place / half
    };
    Ok((0..rows).flat_map(|index| row(from(index)).iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_halves() {
        // Two heads of four rows, of one number each.
        let found = in_halves(&[0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0], 2, 8).unwrap();
        assert_eq!(found, [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0]);
        assert!(in_halves(&[0.0; 6], 2, 6).is_err());
    }

    #[test]
    fn tensors_have_the_names_of_transformers() {
        assert_eq!(transformers("blk.12.attn_q.weight").unwrap().0, "layers.12.self_attn.q_proj.weight");
        assert_eq!(transformers("token_embd.weight").unwrap().0, "embed_tokens.weight");
        assert!(["output.bias", "blk.0.other.weight", "blk.0"].iter().all(|name| transformers(name).is_none()));
        assert_eq!(gpt2("blk.3.attn_qkv.bias").unwrap().0, "h.3.attn.c_attn.bias");
        assert_eq!(gpt2("position_embd.weight").unwrap().0, "wpe.weight");
        assert!(["blk.0.other.weight", "blk.0"].iter().all(|name| gpt2(name).is_none()));
    }
}
