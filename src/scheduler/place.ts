/** The parts of a volume's `host`, `host@backend#pool`. Volumes of before pools have no pool in it. */
export interface HostParts {
  host: string
  backend: string
  pool: string | null
}

export function splitHost(name: string): HostParts {
  const [service = '', pool = null] = name.split('#')
  const at = service.indexOf('@')
  return at === -1
    ? { host: service, backend: service, pool }
    : { host: service.slice(0, at), backend: service.slice(at + 1), pool }
}

/** `backend#pool`: what stays of a `host` when the machine gets another name. */
export function placeOf(name: string): string {
  return name.slice(name.indexOf('@') + 1)
}
