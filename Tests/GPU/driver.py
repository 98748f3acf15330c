"""The NVIDIA driver's own libraries through ctypes: what is asked before, or beside, torch.

Only the standard library is used. The libraries belong to the driver, so they are there wherever a card works, and
their names do not change with the version of CUDA that torch brings.
"""

import contextlib
import ctypes

MANAGED_ACCESS = 89  # CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS
LAST_PREFETCH = 4  # CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION
OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


class DriverError(RuntimeError):
    """A call of the driver that failed, with its number."""

    def __init__(self, call: str, code: int):
        super().__init__(f"{call} answered error {code}")
        self.code = code


class Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class Driver:
    """libcuda. No context is made by what is asked here; allocations use the one that torch has made."""

    def __init__(self):
        self.library = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)

    def call(self, name: str, *arguments) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            raise DriverError(name, code)

    @property
    def count(self) -> int:
        number = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(number))
        return number.value

    def device(self) -> ctypes.c_int:
        """The first that CUDA_VISIBLE_DEVICES leaves."""
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        return device

    def bus(self) -> bytes:
        text = ctypes.create_string_buffer(32)
        self.call("cuDeviceGetPCIBusId", text, 32, self.device())
        return text.value

    def can_page(self) -> bool:
        """Managed memory may be larger than the card, and is moved a page at a time."""
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), MANAGED_ACCESS, self.device())
        return bool(value.value)

    def allocate(self, size: int) -> int | None:
        """Ordinary memory of the card, past torch's allocator; None when there is none left."""
        pointer = ctypes.c_uint64()
        try:
            self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        except DriverError as error:
            if error.code == OUT_OF_MEMORY:
                return None
            raise
        return pointer.value

    def free(self, pointer: int) -> None:
        self.call("cuMemFree_v2", ctypes.c_uint64(pointer))

    def last_prefetch(self, pointer: int, size: int) -> int:
        """Where managed memory was last asked to go: a card's number, -1 the host, -2 not asked or not all alike."""
        place = ctypes.c_int(-2)
        self.call("cuMemRangeGetAttribute", ctypes.byref(place), ctypes.c_size_t(ctypes.sizeof(place)),
                  LAST_PREFETCH, ctypes.c_uint64(pointer), ctypes.c_size_t(size))
        return place.value


class Monitor:
    """libnvidia-ml: the card's memory as a whole, without a context that would itself take some."""

    def __init__(self, bus: bytes):
        self.library = ctypes.CDLL("libnvidia-ml.so.1")
        self.call("nvmlInit_v2")
        self.handle = ctypes.c_void_p()
        self.call("nvmlDeviceGetHandleByPciBusId_v2", bus, ctypes.byref(self.handle))

    def call(self, name: str, *arguments) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            raise DriverError(name, code)

    def memory(self) -> Memory:
        memory = Memory()
        self.call("nvmlDeviceGetMemoryInfo", self.handle, ctypes.byref(memory))
        return memory

    def text(self, name: str, *before) -> str:
        text = ctypes.create_string_buffer(96)
        self.call(name, *before, text, ctypes.c_uint(96))
        return text.value.decode(errors="replace")

    def name(self) -> str:
        return self.text("nvmlDeviceGetName", self.handle)

    def version(self) -> str:
        return self.text("nvmlSystemGetDriverVersion")


def cards() -> int:
    """How many NVIDIA cards can be used: 0 where there is no driver."""
    try:
        return Driver().count
    except (OSError, AttributeError, DriverError):
        return 0


def free_bytes() -> int | None:
    """Free memory of the first card before this process has a context on it; None where nobody tells."""
    with contextlib.suppress(OSError, AttributeError, DriverError):
        return Monitor(Driver().bus()).memory().free
    return None


def describe() -> dict | None:
    """The card for the head of the table; None without one."""
    if not cards():
        return None
    driver = Driver()
    found = {"cards": driver.count, "name": "NVIDIA card", "driver": "unknown", "memory": None}
    with contextlib.suppress(OSError, AttributeError, DriverError):
        monitor = Monitor(driver.bus())
        found |= {"name": monitor.name(), "driver": monitor.version(), "memory": monitor.memory().total}
    return found
