//! An adapter ready to compute: its hooks, its head and its tensors on the device.
