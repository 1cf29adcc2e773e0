hf_hub_download = None
