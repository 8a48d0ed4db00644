"""What models see, with the answers: windows of frames and samples, clips of features."""
