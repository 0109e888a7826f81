/** Cornerstone, started once for the whole page. */
import * as cornerstone from '@cornerstonejs/core';
import dicomImageLoader from '@cornerstonejs/dicom-image-loader';
import * as tools from '@cornerstonejs/tools';
import { drawExactly } from './exact-samples';
import { MEASURING_TOOLS } from './measuring';
import { forgetFrames, registerPictures } from './pictures';

const ENGINE = 'bfr';
const TOOL_GROUP = 'bfr';
const MEMORY_SHARE = 0.25;
const MEMORY_LIMIT_BYTES = 1.5e9;

export type PointerTool =
  | 'window'
  | 'zoom'
  | 'pan'
  | 'scroll'
  | 'length'
  | 'angle'
  | 'ellipse'
  | 'probe';

const TOOL_NAMES: Record<PointerTool, string> = {
  window: tools.WindowLevelTool.toolName,
  zoom: tools.ZoomTool.toolName,
  pan: tools.PanTool.toolName,
  scroll: tools.StackScrollTool.toolName,
  length: tools.LengthTool.toolName,
  angle: tools.AngleTool.toolName,
  ellipse: tools.EllipticalROITool.toolName,
  probe: tools.ProbeTool.toolName,
};

let started: Promise<void> | undefined;

/** Starts the drawing library, its decoders and tools; a second call waits for the first. */
export function startCornerstone(): Promise<void> {
  started ??= start();
  return started;
}

async function start(): Promise<void> {
  const exact = drawExactly();
  await cornerstone.init();
  if (!exact) cornerstone.setUseCPURendering(true);
  dicomImageLoader.init({ maxWebWorkers: 2 });
  registerPictures();
  tools.init();
  const memoryGiB = (navigator as { deviceMemory?: number }).deviceMemory ?? 4;
  cornerstone.cache.setMaxCacheSize(Math.min(memoryGiB * 1e9 * MEMORY_SHARE, MEMORY_LIMIT_BYTES));

  const group = tools.ToolGroupManager.createToolGroup(TOOL_GROUP);
  if (!group) throw new Error('the tools could not be started');
  const { Primary, Secondary, Auxiliary } = tools.Enums.MouseBindings;
  for (const tool of [
    tools.WindowLevelTool,
    tools.ZoomTool,
    tools.PanTool,
    tools.StackScrollTool,
  ]) {
    tools.addTool(tool);
    group.addTool(tool.toolName);
  }
  for (const [tool, configuration] of MEASURING_TOOLS) {
    tools.addTool(tool);
    group.addTool(tool.toolName, configuration);
    group.setToolPassive(tool.toolName);
  }
  group.setToolActive(tools.PanTool.toolName, { bindings: [{ mouseButton: Auxiliary }] });
  group.setToolActive(tools.ZoomTool.toolName, {
    bindings: [{ mouseButton: Secondary }, { numTouchPoints: 2 }],
  });
  group.setToolActive(tools.WindowLevelTool.toolName, { bindings: [{ mouseButton: Primary }] });
}

export function toolGroup() {
  const group = tools.ToolGroupManager.getToolGroup(TOOL_GROUP);
  if (!group) throw new Error('the tools are not started');
  return group;
}

/** Gives the left mouse button, or one finger, to the tool; the others stay on the other buttons. */
export function chooseTool(chosen: PointerTool): void {
  const group = toolGroup();
  const { Primary, Secondary, Auxiliary } = tools.Enums.MouseBindings;
  for (const name of Object.values(TOOL_NAMES))
    group.setToolPassive(name, { removeAllBindings: true });
  const bindings = (tool: PointerTool) => (tool === chosen ? [{ mouseButton: Primary }] : []);
  group.setToolActive(TOOL_NAMES.pan, {
    bindings: [{ mouseButton: Auxiliary }, ...bindings('pan')],
  });
  group.setToolActive(TOOL_NAMES.zoom, {
    bindings: [{ mouseButton: Secondary }, { numTouchPoints: 2 }, ...bindings('zoom')],
  });
  if (chosen !== 'pan' && chosen !== 'zoom')
    group.setToolActive(TOOL_NAMES[chosen], { bindings: bindings(chosen) });
}

/** The one rendering engine of the page; made when the first viewport needs it. */
export function renderingEngine(): cornerstone.RenderingEngine {
  const existing = cornerstone.getRenderingEngine(ENGINE) as
    | cornerstone.RenderingEngine
    | undefined;
  return existing ?? new cornerstone.RenderingEngine(ENGINE);
}

/** Forgets pictures, attributes and marks: nothing of one patient stays when the viewer is left. */
export function forgetEverything(): void {
  tools.annotation.state.removeAllAnnotations();
  cornerstone.getRenderingEngine(ENGINE)?.destroy();
  cornerstone.cache.purgeCache();
  forgetFrames();
}
