"""A CHIP-8 interpreter in plain Python, written from the public descriptions of the machine, to hold octax against.

Where these differ between machines it does as later ones do: shifts work in place, FX55 and FX65 leave I alone, sprites
are clipped at the edge, 8XY1 to 8XY3 clear the flag. Three things that no description has can be asked for by name.
"""

from collections.abc import Callable

COLUMNS, ROWS, START, FONT = 64, 32, 0x200, 0x50
DIGITS = (
    "F0909090F0 2060202070 F010F080F0 F010F010F0 9090F01010 F080F010F0 F080F090F0 F010204040 "
    "F090F090F0 F090F010F0 F090F09090 E090E090E0 F0808080F0 E0909090E0 F080F080F0 F080F08080"
)
DEPARTURES = {
    "8XY0": "copying a register clears the flag",
    "FX1E": "adding to I writes the flag, also where nothing overflows",
    "BNNN": "the jump goes to NN + VX, in the first 510 bytes of memory",
}


class Chip8:
    """Memory, registers and screen of one machine.

    Args:
        rom: loaded at 0x200. random: gives a byte for CXNN. departures: keys of DEPARTURES.
    Attributes:
        screen: rows of 0 and 1, (32, 64). V, I, pc, stack, delay, sound: registers. keys: those that are down.
        used: names of the instructions seen so far.
    """

    def __init__(self, rom: bytes, random: Callable[[], int] = lambda: 0, departures: tuple[str, ...] = ()):
        self.memory = bytearray(4096)
        self.memory[START : START + len(rom)] = rom
        font = bytes.fromhex(DIGITS)
        self.memory[FONT : FONT + len(font)] = font
        self.screen = [[0] * COLUMNS for _ in range(ROWS)]
        self.V, self.I, self.pc, self.stack = [0] * 16, 0, START, []
        self.delay, self.sound, self.keys = 0, 0, set()
        self.random, self.departures, self.used = random, departures, set()

    def run(self, instructions: int) -> None:
        """Execute so many instructions; a wait for a key takes one each time it looks."""
        for _ in range(instructions):
            word = self.memory[self.pc] << 8 | self.memory[self.pc + 1]
            self.pc += 2
            self.execute(word >> 12, word >> 8 & 15, word >> 4 & 15, word & 15, word & 255, word & 4095)

    def execute(self, kind: int, x: int, y: int, n: int, nn: int, nnn: int) -> None:
        """One instruction, given its first digit and its operands."""
        V = self.V
        self.used.add(f"{kind:X}" + {0: f"{nnn:03X}", 8: f"XY{n:X}", 14: f"X{nn:02X}", 15: f"X{nn:02X}"}.get(kind, ""))
        if kind == 0x0:
            if nnn == 0x0E0:
                self.screen = [[0] * COLUMNS for _ in range(ROWS)]
            elif nnn == 0x0EE:
                self.pc = self.stack.pop()
        elif kind == 0x1:
            self.pc = nnn
        elif kind == 0x2:
            self.stack.append(self.pc)
            self.pc = nnn
        elif kind in (0x3, 0x4, 0x5, 0x9):
            other = nn if kind < 0x5 else V[y]
            self.pc += 2 * ((V[x] == other) == (kind in (0x3, 0x5)))
        elif kind == 0x6:
            V[x] = nn
        elif kind == 0x7:
            V[x] = (V[x] + nn) & 255
        elif kind == 0x8:
            self.arithmetic(x, V[x], V[y], n)
        elif kind == 0xA:
            self.I = nnn
        elif kind == 0xB:
            self.pc = (nn + V[x] if "BNNN" in self.departures else nnn + V[x]) & 4095
        elif kind == 0xC:
            V[x] = self.random() & nn
        elif kind == 0xD:
            self.draw(V[x] % COLUMNS, V[y] % ROWS, n)
        elif kind == 0xE:
            self.pc += 2 * ((V[x] & 15 in self.keys) == (nn == 0x9E))
        else:
            self.miscellaneous(x, nn)

    def arithmetic(self, x: int, a: int, b: int, n: int) -> None:
        """8XYN: the flag is written last, so it wins where X is F."""
        if n == 0x0:
            self.V[x] = b
            if "8XY0" in self.departures:
                self.V[15] = 0
            return
        results = {
            0x1: (a | b, 0),
            0x2: (a & b, 0),
            0x3: (a ^ b, 0),
            0x4: (a + b, a + b > 255),
            0x5: (a - b, a >= b),
            0x6: (a >> 1, a & 1),
            0x7: (b - a, b >= a),
            0xE: (a << 1, a >> 7),
        }
        value, flag = results[n]
        self.V[x] = value & 255
        self.V[15] = int(flag)

    def draw(self, left: int, top: int, height: int) -> None:
        """DXYN: flip pixels where the sprite has ones; the flag says whether one went out."""
        self.V[15] = 0
        for row in range(min(height, ROWS - top)):
            for column in range(min(8, COLUMNS - left)):
                if self.memory[self.I + row] >> (7 - column) & 1:
                    self.V[15] |= self.screen[top + row][left + column]
                    self.screen[top + row][left + column] ^= 1

    def miscellaneous(self, x: int, nn: int) -> None:
        """FXNN: timers, keys, digits and memory."""
        V = self.V
        if nn == 0x07:
            V[x] = self.delay
        elif nn == 0x0A:
            if self.keys:
                V[x] = min(self.keys)
            else:
                self.pc -= 2
        elif nn == 0x15:
            self.delay = V[x]
        elif nn == 0x18:
            self.sound = V[x]
        elif nn == 0x1E:
            total = self.I + V[x]
            self.I = total & 4095
            if "FX1E" in self.departures:
                V[15] = int(total > 4095)
        elif nn == 0x29:
            self.I = FONT + 5 * (V[x] & 15)
        elif nn == 0x33:
            self.memory[self.I : self.I + 3] = bytes(int(digit) for digit in f"{V[x]:03d}")
        elif nn == 0x55:
            self.memory[self.I : self.I + x + 1] = bytes(V[: x + 1])
        elif nn == 0x65:
            V[: x + 1] = self.memory[self.I : self.I + x + 1]
