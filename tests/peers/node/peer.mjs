// A day at a modality, over one association of dcmjs-dimse: looks at the worklist, tells that it has
// begun, stores, tells that it has ended, asks for commitment and stays for the report.
//
// Reads what to do as JSON from standard input; the last line it prints is what it was answered.

import { readFileSync } from 'node:fs'
import dimse from 'dcmjs-dimse'

const { Client, Dataset } = dimse
const { CEchoRequest, CFindRequest, CStoreRequest, NActionRequest, NCreateRequest, NSetRequest } =
  dimse.requests
const { NEventReportResponse } = dimse.responses

const MPPS = '1.2.840.10008.3.1.2.3.3'
const COMMITMENT = '1.2.840.10008.1.20.1'
const COMMITMENT_INSTANCE = '1.2.840.10008.1.20.1.1'

const task = JSON.parse(readFileSync(0, 'utf8'))
const told = { statuses: {}, worklist: [], report: null }

const client = new Client()

function add(name, request, dataset) {
  if (dataset) request.setDataset(new Dataset(dataset))
  request.on('response', (response) => {
    told.statuses[name] = response.getStatus()
    if (name === 'worklist' && response.hasDataset()) {
      told.worklist.push(response.getDataset().getElements())
    }
  })
  client.addRequest(request)
}

add('echo', new CEchoRequest())
add('worklist', CFindRequest.createWorklistFindRequest(task.worklist))
add('begin', new NCreateRequest(MPPS, task.step), task.begun)
add('store', new CStoreRequest(task.file))
add('end', new NSetRequest(MPPS, task.step), task.ended)
add('commitment', new NActionRequest(COMMITMENT, COMMITMENT_INSTANCE, 1), task.commitment)

client.on('nEventReportRequest', (request, callback) => {
  told.report = { type: request.getEventTypeId(), ...request.getDataset().getElements() }
  const response = NEventReportResponse.fromRequest(request)
  response.setStatus(0)
  callback(response)
})
client.on('associationRejected', (result) => {
  told.rejected = result
})
client.on('networkError', (error) => {
  told.error = String(error)
})
client.on('closed', () => console.log(JSON.stringify(told)))

const tls = task.tls && {
  key: readFileSync(task.tls.key),
  cert: readFileSync(task.tls.cert),
  ca: readFileSync(task.tls.ca),
  rejectUnauthorized: true,
}
client.send('127.0.0.1', task.port, task.calling, task.called, {
  associationLingerTimeout: task.linger_ms,
  userIdentity: task.user && {
    type: 2,
    positiveResponseRequested: true,
    primaryField: task.user.name,
    secondaryField: task.user.passcode,
  },
  ...(tls ? { securityOptions: tls } : {}),
})
