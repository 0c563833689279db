//! candle
