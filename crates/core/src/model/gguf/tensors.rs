//! Tensors of a GGUF file, with the names and the row order of transformers.

use super::file::GgufFile;
use super::repack;
use crate::error::Result;
use crate::model::checkpoint_files::damaged_file_error;
use crate::model::weights::{CheckpointTensors, StoredTensor};
use candle_core::Device;
use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::Content;
use espalier_tensor::Tensor;
use espalier_tensor::quant::StoredWeight;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens the tensors of a file. `to_canonical_name` maps transformers' name of a tensor to the canonical name.
///
/// # Errors
/// `Invalid` if the file lacks the number of heads.
pub fn read_weights(gguf: &GgufFile, to_canonical_name: impl Fn(&str) -> Option<String>) -> Result<CheckpointTensors> {
    let architecture = gguf.architecture()?;
    let head_count = |field: &str| gguf.u64_value(&format!("{architecture}.attention.{field}"));
    let heads = gguf.require("attention.head_count", head_count("head_count"))? as usize;
    let kv_heads = head_count("head_count_kv").map_or(heads, |heads| heads as usize);
    let mut tensors: BTreeMap<String, Box<dyn StoredTensor>> = BTreeMap::new();
    for (name, info) in &gguf.content.tensor_infos {
        let mapped = if architecture == "gpt2" { gpt2_tensor_name(name) } else { llama_tensor_name(name) };
        let Some((hf_name, part_name)) = mapped else { continue };
        let Some(canonical_name) = to_canonical_name(&hf_name) else { continue };
        let rope_heads = match (architecture, part_name) {
            ("llama", "attn_q") => Some(heads),
            ("llama", "attn_k") => Some(kv_heads),
            _ => None,
        };
        tensors.insert(canonical_name, Box::new(GgufTensor::new(gguf, name, info.shape.dims(), rope_heads)));
    }
    Ok(CheckpointTensors::from_tensors(tensors))
}

/// Reads a tensor that has no counterpart in transformers.
///
/// # Errors
/// `Invalid` (`base_model_damaged`) if it is missing or damaged.
pub fn read_f32_tensor(gguf: &GgufFile, name: &str) -> Result<Vec<f32>> {
    let info = gguf.require(&format!("the tensor {name}"), gguf.content.tensor_infos.get(name))?;
    let tensor_ref = GgufTensor::new(gguf, name, info.shape.dims(), None);
    let (tensor, _) =
        tensor_ref.read().map_err(|reason| damaged_file_error(&gguf.path, &format!("{name}: {reason}")))?;
    Ok(tensor.values)
}

/// Transformers' name of a tensor of the Llama family, and its module in the GGUF name.
fn llama_tensor_name(gguf_name: &str) -> Option<(String, &str)> {
    match gguf_name {
        "token_embd.weight" => return Some(("embed_tokens.weight".to_string(), gguf_name)),
        "output.weight" => return Some(("lm_head.weight".to_string(), gguf_name)),
        "output_norm.weight" => return Some(("norm.weight".to_string(), gguf_name)),
        _ => {}
    }
    let (layer, rest) = gguf_name.strip_prefix("blk.")?.split_once('.')?;
    let (part_name, suffix) = rest.split_once('.')?;
    let module = match part_name {
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
    Some((format!("layers.{layer}.{module}.{suffix}"), part_name))
}

/// Transformers' name of a tensor of GPT-2, and its module in the GGUF name.
fn gpt2_tensor_name(gguf_name: &str) -> Option<(String, &str)> {
    let (path, suffix) = gguf_name.rsplit_once('.')?;
    let top_level = |module: &str| Some((format!("{module}.{suffix}"), gguf_name));
    match path {
        "token_embd" => return top_level("wte"),
        "position_embd" => return top_level("wpe"),
        "output_norm" => return top_level("ln_f"),
        "output" => return top_level("lm_head"),
        _ => {}
    }
    let (layer, part_name) = path.strip_prefix("blk.")?.split_once('.')?;
    let module = match part_name {
        "attn_norm" => "ln_1",
        "attn_qkv" => "attn.c_attn",
        "attn_output" => "attn.c_proj",
        "ffn_norm" => "ln_2",
        "ffn_up" => "mlp.c_fc",
        "ffn_down" => "mlp.c_proj",
        _ => return None,
    };
    Some((format!("h.{layer}.{module}.{suffix}"), part_name))
}

struct GgufTensor {
    path: PathBuf,
    content: Arc<Content>,
    name: String,
    shape: Vec<usize>,
    /// Number of heads whose rows are permuted: llama.cpp stores the two rows of each rotated pair next to each other, transformers
    /// first all first rows, then all second rows.
    rope_heads: Option<usize>,
}

impl StoredTensor for GgufTensor {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn read_weight(&self) -> std::result::Result<(StoredWeight, [u8; 32]), String> {
        let (qtensor, digest) = self.load_qtensor()?;
        let Some(format) = repack::quant_format(qtensor.dtype()) else {
            return self.dequantize(&qtensor).map(|tensor| (StoredWeight::Dense(tensor), digest));
        };
        match self.shape.as_slice() {
            [output, input] if input.is_multiple_of(32) => {
                let bytes = qtensor.data().map_err(|error| error.to_string())?;
                let bytes = match repack::repack_blocks(qtensor.dtype(), &bytes) {
                    Some(blocks) => blocks,
                    None => bytes.into_owned(),
                };
                let bytes = match self.rope_heads {
                    None => bytes,
                    Some(heads) => unpermute_rope_rows(&bytes, heads, *output)?,
                };
                Ok((StoredWeight::Quantized { format, shape: [*output, *input], bytes }, digest))
            }
            _ => self.dequantize(&qtensor).map(|tensor| (StoredWeight::Dense(tensor), digest)),
        }
    }

    fn read(&self) -> std::result::Result<(Tensor, [u8; 32]), String> {
        let (qtensor, digest) = self.load_qtensor()?;
        Ok((self.dequantize(&qtensor)?, digest))
    }
}

impl GgufTensor {
    fn new(gguf: &GgufFile, name: &str, shape: &[usize], rope_heads: Option<usize>) -> Self {
        let (path, content) = (gguf.path.clone(), Arc::clone(&gguf.content));
        Self { path, content, name: name.to_string(), shape: shape.to_vec(), rope_heads }
    }

    fn load_qtensor(&self) -> std::result::Result<(QTensor, [u8; 32]), String> {
        let to_message = |error: candle_core::Error| error.to_string();
        let mut file = BufReader::new(File::open(&self.path).map_err(|error| error.to_string())?);
        let qtensor = self.content.tensor(&mut file, &self.name, &Device::Cpu).map_err(to_message)?;
        let mut hasher = Sha256::new();
        hasher.update(format!("{:?}{:?}", qtensor.dtype(), self.shape));
        hasher.update(qtensor.data().map_err(to_message)?);
        Ok((qtensor, hasher.finalize().into()))
    }

    fn dequantize(&self, qtensor: &QTensor) -> std::result::Result<Tensor, String> {
        let to_message = |error: candle_core::Error| error.to_string();
        let stored_values =
            qtensor.dequantize(&Device::Cpu).and_then(|tensor| tensor.flatten_all()?.to_vec1()).map_err(to_message)?;
        let values = match self.rope_heads {
            None => stored_values,
            Some(heads) => unpermute_rope_rows(&stored_values, heads, self.shape[0])?,
        };
        Ok(Tensor::new(self.shape.clone(), values))
    }
}

/// Reverses llama.cpp's permutation of the rows of each head.
///
/// # Errors
/// A description, if the rows are not pairs of `heads` heads.
fn unpermute_rope_rows<T: Copy>(values: &[T], heads: usize, rows: usize) -> std::result::Result<Vec<T>, String> {
    if heads == 0 || !rows.is_multiple_of(2 * heads) {
        return Err(format!("{rows} rows are not pairs of {heads} heads"));
    }
    let (row_width, half_head) = (values.len() / rows, rows / heads / 2);
    let row = |index: usize| &values[index * row_width..(index + 1) * row_width];
    let source_row = |index: usize| {
        let (head, row_in_head) = (index / (2 * half_head), index % (2 * half_head));
        head * 2 * half_head + row_in_head % half_head * 2 + row_in_head / half_head
    };
    Ok((0..rows).flat_map(|index| row(source_row(index)).iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rope_rows_are_unpermuted() {
        // Two heads of four rows with one value each.
        let unpermuted = unpermute_rope_rows(&[0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0], 2, 8).unwrap();
        assert_eq!(unpermuted, [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0]);
        assert!(unpermute_rope_rows(&[0.0; 6], 2, 6).is_err());
    }

    #[test]
    fn gguf_tensor_names_map_to_transformers() {
        assert_eq!(llama_tensor_name("blk.12.attn_q.weight").unwrap().0, "layers.12.self_attn.q_proj.weight");
        assert_eq!(llama_tensor_name("token_embd.weight").unwrap().0, "embed_tokens.weight");
        assert!(["output.bias", "blk.0.other.weight", "blk.0"].iter().all(|name| llama_tensor_name(name).is_none()));
        assert_eq!(gpt2_tensor_name("blk.3.attn_qkv.bias").unwrap().0, "h.3.attn.c_attn.bias");
        assert_eq!(gpt2_tensor_name("position_embd.weight").unwrap().0, "wpe.weight");
        assert!(["blk.0.other.weight", "blk.0"].iter().all(|name| gpt2_tensor_name(name).is_none()));
    }
}
