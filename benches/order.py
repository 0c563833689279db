"""The order of espalier's examples, for peers that are to see the same: src/compute/random.rs and training/order.rs in Python."""

import hashlib

MASK = (1 << 64) - 1


class Random:
    """SplitMix64, its state hashed from the seed and the names of the place."""

    def __init__(self, seed, *place):
        names = b"".join(len(name.encode()).to_bytes(8, "little") + name.encode() for name in place)
        self.state = int.from_bytes(hashlib.sha256(seed.to_bytes(8, "little") + names).digest()[:8], "little")

    def bits(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        value = self.state
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
        return value ^ (value >> 31)

    def below(self, bound):
        zone = MASK - MASK % bound
        while (value := self.bits()) >= zone:
            pass
        return value % bound

    def shuffle(self, items):
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]


def batches(count, epochs, size, seed):
    """The batches of each epoch, as indices."""
    for number in range(epochs):
        order = list(range(count))
        Random(seed, "epoch", str(number)).shuffle(order)
        yield [order[start : start + size] for start in range(0, count, size)]
