import torch

# The tensors of these tests are small: threads would cost more than they give, most of all side by side.
torch.set_num_threads(1)
