-- Dissects what weft says on the wire: sealed frames beside VXLAN on UDP 4789, handshakes and gossip on UDP 7946.
-- What is sealed stays so: keys are in no capture. 'weft capture NETWORK' shows the frames themselves.
--
--   tshark -X lua_script:weft.lua -r file
--   or copy it into Wireshark's personal plugins folder (Help, About, Folders)
--
-- Ports other than these: "Decode As…", or change the two numbers.

local DATA_PORT, GOSSIP_PORT = 4789, 7946

-- Sealed frames ------------------------------------------------------------------------------------------------

local sealed = Proto("weft", "weft sealed frame")

local kinds = { [0x01] = "sealed", [0x03] = "sealed, inner checksum partial" }

local sf = {
    kind = ProtoField.uint8("weft.kind", "Kind", base.HEX, kinds),
    vni = ProtoField.uint24("weft.vni", "VNI", base.DEC),
    session = ProtoField.uint32("weft.session", "Session index", base.HEX),
    queue = ProtoField.uint8("weft.queue", "Sender's queue", base.DEC),
    number = ProtoField.uint64("weft.number", "Packet number in its queue", base.DEC),
    frame = ProtoField.bytes("weft.frame", "Sealed inner frame"),
    frame_len = ProtoField.uint32("weft.frame.len", "Inner frame length", base.DEC),
    tag = ProtoField.bytes("weft.tag", "Tag"),
}
sealed.fields = { sf.kind, sf.vni, sf.session, sf.queue, sf.number, sf.frame, sf.frame_len, sf.tag }

local SEALED_HEADER, TAG = 16, 16
local ports = DissectorTable.get("udp.port")
-- What reads this port without us: VXLAN.
local vxlan = ports:get_dissector(DATA_PORT)

function sealed.dissector(buffer, pinfo, tree)
    local length = buffer:len()
    -- VXLAN has the I flag (0x08), which no kind of weft's has.
    if length < SEALED_HEADER + TAG or kinds[buffer(0, 1):uint()] == nil then
        return vxlan and vxlan:call(buffer, pinfo, tree) or 0
    end
    pinfo.cols.protocol = "weft"
    local inner = length - SEALED_HEADER - TAG
    local number = buffer(9, 7):uint64()
    pinfo.cols.info = string.format(
        "sealed, VNI %d, session %08x, queue %d, number %s, %d octets",
        buffer(1, 3):uint(), buffer(4, 4):uint(), buffer(8, 1):uint(), tostring(number), inner)
    local top = tree:add(sealed, buffer())
    top:add(sf.kind, buffer(0, 1))
    top:add(sf.vni, buffer(1, 3))
    top:add(sf.session, buffer(4, 4))
    top:add(sf.queue, buffer(8, 1))
    top:add(sf.number, buffer(9, 7), number)
    top:add(sf.frame_len, buffer(SEALED_HEADER, inner), inner):set_generated()
    if inner > 0 then
        top:add(sf.frame, buffer(SEALED_HEADER, inner))
    end
    top:add(sf.tag, buffer(length - TAG, TAG))
    return length
end

-- Handshakes and gossip ----------------------------------------------------------------------------------------

local control = Proto("weft_control", "weft control")

local messages = {
    [0x01] = "gossip",
    [0x02] = "gossip of a stream",
    [0x10] = "initiation",
    [0x11] = "response",
    [0x12] = "cookie reply",
    [0x13] = "confirmation",
}

local cf = {
    kind = ProtoField.uint8("weft_control.kind", "Kind", base.HEX, messages),
    version = ProtoField.uint8("weft_control.version", "Version", base.DEC),
    index = ProtoField.uint32("weft_control.index", "Index", base.HEX),
    epoch = ProtoField.uint32("weft_control.epoch", "Ring epoch", base.DEC),
    ephemeral = ProtoField.bytes("weft_control.ephemeral", "Ephemeral key"),
    static = ProtoField.bytes("weft_control.static", "Sealed static key"),
    payload = ProtoField.bytes("weft_control.payload", "Sealed payload"),
    nonce = ProtoField.bytes("weft_control.nonce", "Nonce"),
    mac1 = ProtoField.bytes("weft_control.mac1", "MAC 1"),
    mac2 = ProtoField.bytes("weft_control.mac2", "MAC 2"),
    sender = ProtoField.bytes("weft_control.sender", "Sender"),
    counter = ProtoField.uint64("weft_control.counter", "Counter", base.DEC),
    tag = ProtoField.bytes("weft_control.tag", "Tag"),
}
control.fields = {
    cf.kind, cf.version, cf.index, cf.epoch, cf.ephemeral, cf.static, cf.payload, cf.nonce, cf.mac1, cf.mac2,
    cf.sender, cf.counter, cf.tag,
}

-- Field and length, from offset 8 on.
local handshakes = {
    [0x10] = { { cf.epoch, 4 }, { cf.ephemeral, 32 }, { cf.static, 48 }, { cf.payload, 34 }, { cf.mac1, 16 }, { cf.mac2, 16 } },
    [0x11] = { { cf.ephemeral, 32 }, { cf.payload, 38 }, { cf.mac1, 16 } },
    [0x12] = { { cf.nonce, 16 }, { cf.payload, 32 } },
    [0x13] = { { cf.mac1, 16 } },
}

-- As 'weft keys ls' names it.
local function epoch(field)
    return string.format("%d-%04x", field(0, 2):uint(), field(2, 2):uint())
end

local function size(parts)
    local octets = 8
    for _, part in ipairs(parts) do
        octets = octets + part[2]
    end
    return octets
end

local function handshake(buffer, pinfo, tree, kind)
    local parts = handshakes[kind]
    if buffer:len() ~= size(parts) then
        return 0
    end
    pinfo.cols.protocol = "weft"
    local key = kind == 0x10 and ", key " .. epoch(buffer(8, 4)) or ""
    pinfo.cols.info = string.format("%s, index %08x%s", messages[kind], buffer(4, 4):uint(), key)
    local top = tree:add(control, buffer())
    top:add(cf.kind, buffer(0, 1))
    top:add(cf.version, buffer(1, 1))
    top:add(cf.index, buffer(4, 4))
    local at = 8
    for _, part in ipairs(parts) do
        top:add(part[1], buffer(at, part[2]))
        at = at + part[2]
    end
    return at
end

local GOSSIP_HEADER = 46

local function gossip(buffer, pinfo, tree, kind)
    local length = buffer:len()
    if length < GOSSIP_HEADER + TAG then
        return 0
    end
    local body = length - GOSSIP_HEADER - TAG
    pinfo.cols.protocol = "weft"
    pinfo.cols.info = string.format("%s, key %s, %d octets", messages[kind], epoch(buffer(2, 4)), body)
    local top = tree:add(control, buffer())
    top:add(cf.kind, buffer(0, 1))
    top:add(cf.version, buffer(1, 1))
    top:add(cf.epoch, buffer(2, 4)):append_text(" (key " .. epoch(buffer(2, 4)) .. ")")
    top:add(cf.sender, buffer(6, 16))
    top:add(cf.nonce, buffer(22, 16))
    top:add(cf.counter, buffer(38, 8))
    if body > 0 then
        top:add(cf.payload, buffer(GOSSIP_HEADER, body))
    end
    top:add(cf.tag, buffer(length - TAG, TAG))
    return length
end

function control.dissector(buffer, pinfo, tree)
    if buffer:len() < 8 then
        return 0
    end
    local kind = buffer(0, 1):uint()
    if handshakes[kind] ~= nil then
        return handshake(buffer, pinfo, tree, kind)
    end
    if kind == 0x01 or kind == 0x02 then
        return gossip(buffer, pinfo, tree, kind)
    end
    return 0
end

ports:add(DATA_PORT, sealed)
ports:add(GOSSIP_PORT, control)
