"""What a run is to learn: segmentation, or classification of photographs."""
