AutoTokenizer = None
