"""The user's example of a training pipeline, with the tasks that it speaks of."""

from surroundings import note

from wfengine import flow, task


class Model:
    """A result that is no JSON."""

    def __init__(self, depth, weights):
        self.depth = depth
        self.weights = weights


@task
def fetch_dataset(dataset_id):
    note(f"fetch {dataset_id}")
    return [(x, 2 * x) for x in range(5)]


@task
def prepare_training_data(raw_data):
    note("prepare")
    return [pair for pair in raw_data if pair[0]]


@task
def extract_features(training_data):
    note("features")
    return {"x": [x for x, _ in training_data], "y": [y for _, y in training_data]}


@task
def train_model_with_params(features, params):
    note(f"train {params['depth']}")
    return Model(params["depth"], [params["depth"] * x for x in features["x"]])


@task
def evaluate_model(model, features):
    note(f"evaluate {model.depth}")
    return -sum(abs(w - y) for w, y in zip(model.weights, features["y"], strict=True))


@task
def select_best_model(models):
    note("select")
    return max(models, key=lambda pair: pair[1])[0]


@task
def deploy_model(best_model):
    note("deploy")
    return f"depth {best_model.depth} is deployed"

@flow(name="Model Training Pipeline")
def train_model(dataset_id, model_parameters):
    # Fetch and prepare training data
    raw_data = fetch_dataset(dataset_id)
    training_data = prepare_training_data(raw_data)
    
    # Feature engineering
    features = extract_features(training_data)
    
    # Train and evaluate multiple model variants
    models = []
    for params in model_parameters:
        model = train_model_with_params(features, params)
        evaluation = evaluate_model(model, features)
        models.append((model, evaluation))
    
    # Select best model
    best_model = select_best_model(models)
    
    # Deploy model to production
    deploy_result = deploy_model(best_model)
    
    return deploy_result

if __name__ == "__main__":
    print(train_model("flights", [{"depth": depth} for depth in (1, 2, 3)]))
