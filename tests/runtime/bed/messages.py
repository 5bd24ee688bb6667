"""The messages of CRI runtime.v1 that these tests use, described to protobuf at run time: no generated code is kept.

Names and numbers are those of kubernetes/cri-api `pkg/apis/runtime/v1/api.proto`. Fields that nobody here reads are
left out, which protobuf allows: the other side sees them unset, and what it sends in them is skipped.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

_PACKAGE = "runtime.v1"

# One message a line: `field=number`, then `:type` unless it is a string, then `*` where repeated. `Entry` is how a
# map<string, string> looks on the wire (protobuf encoding, "Maps").
_MESSAGES = """
Entry                    key=1 value=2
VersionRequest           version=1
VersionResponse          version=1 runtime_name=2 runtime_version=3 runtime_api_version=4
StatusRequest            verbose=1:bool
RuntimeCondition         type=1 status=2:bool reason=3 message=4
RuntimeStatus            conditions=1:RuntimeCondition*
StatusResponse           status=1:RuntimeStatus info=2:Entry*
PodSandboxMetadata       name=1 uid=2 namespace=3 attempt=4:uint32
DNSConfig                servers=1* searches=2* options=3*
PortMapping              protocol=1:int32 container_port=2:int32 host_port=3:int32 host_ip=4
LinuxPodSandboxConfig    cgroup_parent=1
PodSandboxConfig         metadata=1:PodSandboxMetadata hostname=2 log_directory=3 dns_config=4:DNSConfig \
                         port_mappings=5:PortMapping* labels=6:Entry* annotations=7:Entry* linux=8:LinuxPodSandboxConfig
RunPodSandboxRequest     config=1:PodSandboxConfig runtime_handler=2
RunPodSandboxResponse    pod_sandbox_id=1
StopPodSandboxRequest    pod_sandbox_id=1
StopPodSandboxResponse
RemovePodSandboxRequest  pod_sandbox_id=1
RemovePodSandboxResponse
PodIP                    ip=1
PodSandboxNetworkStatus  ip=1 additional_ips=2:PodIP*
PodSandboxStatus         id=1 metadata=2:PodSandboxMetadata state=3:int32 network=5:PodSandboxNetworkStatus
PodSandboxStatusRequest  pod_sandbox_id=1 verbose=2:bool
PodSandboxStatusResponse status=1:PodSandboxStatus info=2:Entry*
PodSandbox               id=1 metadata=2:PodSandboxMetadata state=3:int32
ListPodSandboxRequest
ListPodSandboxResponse   items=1:PodSandbox*
ContainerMetadata        name=1 attempt=2:uint32
ImageSpec                image=1
ContainerConfig          metadata=1:ContainerMetadata image=2:ImageSpec command=3* args=4* log_path=11
CreateContainerRequest   pod_sandbox_id=1 config=2:ContainerConfig sandbox_config=3:PodSandboxConfig
CreateContainerResponse  container_id=1
StartContainerRequest    container_id=1
StartContainerResponse
StopContainerRequest     container_id=1 timeout=2:int64
StopContainerResponse
RemoveContainerRequest   container_id=1
RemoveContainerResponse
ExecSyncRequest          container_id=1 cmd=2* timeout=3:int64
ExecSyncResponse         stdout=1:bytes stderr=2:bytes exit_code=3:int32
Image                    id=1 repo_tags=2* size=4:uint64
ListImagesRequest
ListImagesResponse       images=1:Image*
"""

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "uint32": _Field.TYPE_UINT32,
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
}


def _describe(field: descriptor_pb2.FieldDescriptorProto, text: str) -> None:
    field.name, _, rest = text.partition("=")
    number, _, kind = rest.rstrip("*").partition(":")
    field.number = int(number)
    field.label = _Field.LABEL_REPEATED if text.endswith("*") else _Field.LABEL_OPTIONAL
    scalar = _SCALARS.get(kind or "string")
    field.type = scalar or _Field.TYPE_MESSAGE
    if scalar is None:
        field.type_name = f".{_PACKAGE}.{kind}"


def _load(text: str) -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="cri.proto", package=_PACKAGE, syntax="proto3")
    for line in text.replace("\\\n", "").split("\n"):
        for name, *fields in filter(None, [line.split()]):
            message = file.message_type.add(name=name)
            for field in fields:
                _describe(message.field.add(), field)
    pool = (
        descriptor_pool.DescriptorPool()
    )  # a private one: nothing else in the process may see a half-described runtime.v1
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}"))
        for message in file.message_type
    }


MESSAGES = _load(_MESSAGES)
