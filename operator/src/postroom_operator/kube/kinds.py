"""The kinds that the operator reads and writes, as JSON objects: a plan that is plain data needs no model classes, and costs no memory for them."""

from lightkube.generic_resource import GenericGlobalResource, GenericNamespacedResource, create_global_resource, create_namespaced_resource

from postroom_operator.plan.names import GROUP, VERSION

Kind = type[GenericNamespacedResource]

MAIL_DOMAIN = create_namespaced_resource(GROUP, VERSION, "MailDomain", "maildomains")
SENDING_POOL = create_namespaced_resource(GROUP, VERSION, "SendingPool", "sendingpools")
RESOURCES = (MAIL_DOMAIN, SENDING_POOL)
SECRET = create_namespaced_resource("", "v1", "Secret", "secrets")
SERVICE = create_namespaced_resource("", "v1", "Service", "services")
EVENT = create_namespaced_resource("events.k8s.io", "v1", "Event", "events")
NAMESPACE: type[GenericGlobalResource] = create_global_resource("", "v1", "Namespace", "namespaces")
DEPLOYMENT = create_namespaced_resource("apps", "v1", "Deployment", "deployments")
STATEFUL_SET = create_namespaced_resource("apps", "v1", "StatefulSet", "statefulsets")
DISRUPTION_BUDGET = create_namespaced_resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY = create_namespaced_resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
AUTOSCALER = create_namespaced_resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
ENDPOINT_SLICE = create_namespaced_resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
LEASE = create_namespaced_resource("coordination.k8s.io", "v1", "Lease", "leases")
# Of others; used only where they are served.
SCALED_OBJECT = create_namespaced_resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
DNS_ENDPOINT = create_namespaced_resource("externaldns.k8s.io", "v1alpha1", "DNSEndpoint", "dnsendpoints")
CERTIFICATE = create_namespaced_resource("cert-manager.io", "v1", "Certificate", "certificates")

# In the order in which they are applied: what is read before what reads it.
CHILDREN: tuple[Kind, ...] = (
    SECRET,
    DNS_ENDPOINT,
    CERTIFICATE,
    SERVICE,
    NETWORK_POLICY,
    DISRUPTION_BUDGET,
    DEPLOYMENT,
    STATEFUL_SET,
    SCALED_OBJECT,
    AUTOSCALER,
)


def kind_name(kind: Kind) -> str:
    """Kind as in manifests."""
    return kind.__name__


BY_NAME = {kind_name(kind): kind for kind in CHILDREN}
OPTIONAL: dict[str, str] = {"ScaledObject": "keda.sh/v1alpha1", "DNSEndpoint": "externaldns.k8s.io/v1alpha1", "Certificate": "cert-manager.io/v1"}
