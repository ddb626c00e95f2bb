/**
 * One request and one response of the Sheepdog protocol as plain values: the fields of every header variant in one
 * flat record. Absent fields are zero on the wire. The codec (header.ts) says which variant an opcode uses; in-process
 * callers pass these values as they are.
 */
export interface SheepRequest {
  opcode: number
  protoVer?: number
  flags?: number
  epoch?: number
  id?: number
  /** Payload of a request with the flag WRITE. */
  body?: Buffer | undefined
  /**
   * Without WRITE: how many bytes the client offers to take. With `target`, they are put there instead of into a new
   * buffer; its length must be equal.
   */
  dataLength?: number
  target?: Buffer
  /** Of a caller in this process that has them: CRC-32, from 0, of each 4 KiB of a body that is written to whole blocks. */
  crcs?: Uint32Array | undefined

  // variant obj
  oid?: bigint
  cowOid?: bigint
  copies?: number
  copyPolicy?: number
  ecIndex?: number
  tgtEpoch?: number
  offset?: number
  // variant vdi
  vdiSize?: number
  baseVdiId?: number
  storePolicy?: number
  blockSizeShift?: number
  snapId?: number
  type?: number
  // variant cluster
  ctime?: bigint
  clusterFlags?: number
  tag?: number
  nodesNr?: number
  // variant io (Collie's own, between Collie's processes): a byte range of a VDI, through its owner
  vid?: number
  session?: number
  length?: number
  /** Of an OPEN_VDI with RESUME: as it was answered when the session was opened. */
  opening?: number
}

export interface SheepResponse {
  opcode: number
  result: number
  flags?: number
  epoch?: number
  id?: number
  body?: Buffer | undefined

  // variant obj
  copies?: number
  offset?: number
  // variant vdi
  vdiId?: number
  attrId?: number
  blockSizeShift?: number
  // variant node
  nrNodes?: number
  storeSize?: number
  storeFree?: number
  // variant cluster_default
  copyPolicy?: number
  // variant hash
  digest?: Buffer
  // variant io
  session?: number
  vdiSize?: number
  opening?: number
}
