"""What is learned from one stack: denoiser, training pairs, deblurring network."""
