import Quantization
print("nibble", simdTarget)
